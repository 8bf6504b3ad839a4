//! What a program has of tokio, of the `redis` crate and of thread-local contexts: where they are, for the probes to read.

pub mod entries;
pub mod grpc;
pub mod redis_packing;
pub mod sockets;
pub mod spawns;
pub mod tls;
pub mod tokio;
