//! What the agent may do: checked before it starts, and given up as soon as it is not needed any more.
//!
//! 1. [`require`]: the capabilities that attaching needs are there, or the missing ones are named.
//! 2. [`give_up`]: all others go before the first thread is started, so every thread is without them.
//! 3. [`Confinement`]: threads that talk to the network have none at all and, by Landlock, hardly any files.
//! 4. [`filter`]: once the programs are loaded, only the system calls of a session are left to all threads.
//!
//! The command of `tracer run -- COMMAND` is started before the second step and inherits nothing of this.

mod calls;
mod capabilities;
mod filter;
mod landlock;
mod user;

pub use ::landlock::RulesetStatus;
pub use calls::UPROBE;
pub use capabilities::{
    ADMIN, CHANGE_USER, Demand, EXTRA, Kept, MissingCapabilities, TRACE, clean_for_command, give_up, missing, remedy,
    require,
};
pub use filter::{FilterError, filter, is_supported as has_filters, refused};
pub use landlock::{Confinement, status as landlock_status};
pub use user::{User, UserError, sudo_user};
