//! The smallest program with an inlined prost call, from which the fuzzers start:
//! `rustc --edition 2024 -C opt-level=2 -C panic=abort -C debuginfo=line-tables-only -C dwarf-version=4 -C link-arg=-nostartfiles
//! -C link-arg=-nostdlib main.rs`, and with version 5.
#![no_std]
#![no_main]

#[path = "prost/src/message.rs"]
mod message;

use message::{BufMut, Message};

struct Order(u64);

struct Out([u8; 64], usize);

impl BufMut for Out {
    #[inline(never)]
    fn put(&mut self, byte: u8) {
        if let Some(place) = self.0.get_mut(self.1) {
            *place = byte;
        }
        self.1 += 1;
    }
}

impl Message for Order {
    #[inline(always)]
    fn encoded_len(&self) -> usize {
        10 - (self.0 | 1).leading_zeros() as usize / 7
    }

    #[inline(always)]
    fn encode_raw(&self, buf: &mut impl BufMut) {
        let mut value = self.0;
        while value >= 0x80 {
            buf.put(value as u8 | 0x80);
            value >>= 7;
        }
        buf.put(value as u8);
    }
}

/// Where the program begins.
#[unsafe(no_mangle)]
pub extern "C" fn _start(number: u64) -> usize {
    let mut out = Out([0; 64], 0);
    let mut written = 0;
    for id in 0..number {
        written += usize::from(Order(id * number).encode(&mut out));
    }
    written + out.1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
