//! A service with very many messages: two thousand places to probe.
//!
//! `messages N`: N rounds of three calls on each of 640 messages; answers with the number of calls.

use anyhow::{Result, bail, ensure};
use prost::Message;
use serde_json::json;
use tracer_test_programs::{converse, number};

fn main() -> Result<()> {
    converse(|command, arguments| match command {
        "messages" => {
            let mut calls = 0;
            for id in 0..number(arguments, 0)? as u64 {
                calls += round(id)?;
            }
            Ok(json!(calls))
        }
        _ => bail!("unknown command"),
    })
}

/// Three calls, compiled anew for each message.
#[inline(never)]
fn calls<M: Message + Default + PartialEq>(message: &M) -> Result<u64> {
    let bytes = message.encode_to_vec();
    let mut again = Vec::new();
    message.encode(&mut again)?;
    ensure!(bytes == again && M::decode(bytes.as_slice())? == *message);
    Ok(3)
}

macro_rules! messages {
    ($module:ident: $($name:ident)*) => {
        mod $module {
            use super::calls;

            $(
                #[derive(Clone, PartialEq, prost::Message)]
                struct $name {
                    #[prost(uint64, tag = "1")]
                    id: u64,
                    #[prost(string, tag = "2")]
                    text: String,
                }
            )*

            pub fn round(id: u64) -> anyhow::Result<u64> {
                let mut number = 0;
                $(number += calls(&$name { id, text: stringify!($name).repeat((id % 7) as usize) })?;)*
                Ok(number)
            }
        }
    };
}

macro_rules! modules {
    ($($module:ident)*) => {
        $(messages!($module: A B C D E F G H I J K L M N O P);)*

        fn round(id: u64) -> Result<u64> {
            let mut number = 0;
            $(number += $module::round(id)?;)*
            Ok(number)
        }
    };
}

modules!(
    a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 c0 c1 c2 c3 c4 c5 c6 c7 c8 c9 d0 d1 d2 d3 d4 d5 d6 d7 d8 d9
);
