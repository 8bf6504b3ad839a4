//! The server of the page: who is let in, what is answered, and how many connections there are.

mod access;
mod routes;
mod server;

pub use access::{Access, TokenError};
pub use server::{ListenError, Server};
