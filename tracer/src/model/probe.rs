//! What a probe of a function means.

use serde::{Deserialize, Serialize};
use tracer_common::map::{
    OP_DECODE, OP_DECODE_LENGTH_DELIMITED, OP_ENCODE, OP_ENCODE_LENGTH_DELIMITED, OP_ENCODE_LENGTH_DELIMITED_TO_VEC,
    OP_ENCODE_TO_VEC, OP_MERGE, OP_MERGE_LENGTH_DELIMITED,
};

/// A probed function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// Index in the records.
    pub index: u32,
    /// What a call of it is. Recordings have its name.
    #[serde(rename = "operation")]
    pub call_of: CallOf,
    /// The message type, if known.
    pub message_type: Option<String>,
    /// Where an inlined call is in the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallPlace>,
}

/// What a call of a probed function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CallOf {
    /// A method of a prost message.
    Message(Operation),
    /// The packing of a Redis command.
    RedisPacking,
}

/// Name of [`CallOf::RedisPacking`] in recordings.
const REDIS_PACKING: &str = "redis_pack";

impl From<CallOf> for String {
    fn from(call: CallOf) -> Self {
        match call {
            CallOf::Message(operation) => operation.name().to_owned(),
            CallOf::RedisPacking => REDIS_PACKING.to_owned(),
        }
    }
}

impl TryFrom<String> for CallOf {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match Operation::from_name(&name) {
            Some(operation) => Ok(Self::Message(operation)),
            None if name == REDIS_PACKING => Ok(Self::RedisPacking),
            None => Err(format!("no probed function is called {name:?}")),
        }
    }
}

/// A method of `prost::Message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `encode`
    Encode,
    /// `encode_to_vec`
    EncodeToVec,
    /// `encode_length_delimited`
    EncodeLengthDelimited,
    /// `encode_length_delimited_to_vec`
    EncodeLengthDelimitedToVec,
    /// `decode`
    Decode,
    /// `decode_length_delimited`
    DecodeLengthDelimited,
    /// `merge`
    Merge,
    /// `merge_length_delimited`
    MergeLengthDelimited,
}

impl Operation {
    const ALL: [Self; 8] = [
        Self::Encode,
        Self::EncodeToVec,
        Self::EncodeLengthDelimited,
        Self::EncodeLengthDelimitedToVec,
        Self::Decode,
        Self::DecodeLengthDelimited,
        Self::Merge,
        Self::MergeLengthDelimited,
    ];

    /// The method's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::EncodeToVec => "encode_to_vec",
            Self::EncodeLengthDelimited => "encode_length_delimited",
            Self::EncodeLengthDelimitedToVec => "encode_length_delimited_to_vec",
            Self::Decode => "decode",
            Self::DecodeLengthDelimited => "decode_length_delimited",
            Self::Merge => "merge",
            Self::MergeLengthDelimited => "merge_length_delimited",
        }
    }

    /// The operation of the method of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// The operation with this number in the eBPF maps.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.code() == code)
    }

    /// Its number in the eBPF maps (`OP_*`).
    pub fn code(self) -> u8 {
        match self {
            Self::Encode => OP_ENCODE,
            Self::EncodeToVec => OP_ENCODE_TO_VEC,
            Self::EncodeLengthDelimited => OP_ENCODE_LENGTH_DELIMITED,
            Self::EncodeLengthDelimitedToVec => OP_ENCODE_LENGTH_DELIMITED_TO_VEC,
            Self::Decode => OP_DECODE,
            Self::DecodeLengthDelimited => OP_DECODE_LENGTH_DELIMITED,
            Self::Merge => OP_MERGE,
            Self::MergeLengthDelimited => OP_MERGE_LENGTH_DELIMITED,
        }
    }

    /// Whether the message's length stands before it.
    pub fn is_length_delimited(self) -> bool {
        matches!(
            self,
            Self::EncodeLengthDelimited
                | Self::EncodeLengthDelimitedToVec
                | Self::DecodeLengthDelimited
                | Self::MergeLengthDelimited
        )
    }

    /// Whether it writes bytes (else it reads them).
    pub fn is_encode(self) -> bool {
        matches!(
            self,
            Self::Encode | Self::EncodeToVec | Self::EncodeLengthDelimited | Self::EncodeLengthDelimitedToVec
        )
    }
}

/// Where an inlined call is in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallPlace {
    /// The function that calls.
    pub function: Option<String>,
    /// Path of its source file, as the compiler was given it.
    pub file: Option<String>,
    /// Line of the call.
    pub line: Option<u32>,
}
