//! Who the command of `tracer run -- COMMAND` runs as.

use std::ffi::{CString, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use nix::unistd::{Gid, Uid, User as Account, getgrouplist};
use rustix::io;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user who was asked for, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    /// Name, home and shell, where the user has an account.
    account: Option<(String, PathBuf, PathBuf)>,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No account has the name.
    #[error("there is no user {0:?}; use a name of /etc/passwd, or the numbers UID:GID")]
    NoUser(String),
    /// A number without an account says nothing of the group.
    #[error("no user has the number {0}; use UID:GID")]
    NoGroup(u32),
    /// Not of the form.
    #[error("{0:?} is no user; use NAME, UID or UID:GID")]
    Form(String),
}

impl FromStr for User {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        let form = || UserError::Form(text.to_owned());
        if let Some((uid, gid)) = text.split_once(':') {
            let uid: u32 = uid.parse().map_err(|_| form())?;
            let gid: u32 = gid.parse().map_err(|_| form())?;
            let account = Account::from_uid(Uid::from_raw(uid)).ok().flatten().map(account);
            return Ok(Self { uid, gid, groups: vec![gid], account });
        }
        let found = match text.parse() {
            Ok(uid) => Account::from_uid(Uid::from_raw(uid)).ok().flatten().ok_or(UserError::NoGroup(uid))?,
            Err(_) if text.is_empty() => return Err(form()),
            Err(_) => Account::from_name(text).ok().flatten().ok_or_else(|| UserError::NoUser(text.to_owned()))?,
        };
        let (uid, gid) = (found.uid.as_raw(), found.gid.as_raw());
        let groups = CString::new(found.name.as_str()).ok().and_then(|name| getgrouplist(&name, found.gid).ok());
        let groups = groups.map_or_else(|| vec![gid], |groups| groups.into_iter().map(Gid::as_raw).collect());
        Ok(Self { uid, gid, groups, account: Some(account(found)) })
    }
}

fn account(account: Account) -> (String, PathBuf, PathBuf) {
    (account.name, account.dir, account.shell)
}

impl User {
    /// Whether the process runs as this user already.
    pub fn is_current(&self) -> bool {
        rustix::process::geteuid().as_raw() == self.uid && rustix::process::getegid().as_raw() == self.gid
    }

    /// Makes the calling thread, the only one of its process, this user's for good: a change from root to another user
    /// takes all capabilities with it.
    pub fn become_this(&self) -> io::Result<()> {
        let groups: Vec<_> = self.groups.iter().map(|&gid| rustix::process::Gid::from_raw(gid)).collect();
        let (uid, gid) = (rustix::process::Uid::from_raw(self.uid), rustix::process::Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)
    }

    /// What programs ask the environment about their user.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some((name, home, shell)) = &self.account else { return Vec::new() };
        let name = OsString::from(name);
        vec![("HOME", home.into()), ("SHELL", shell.into()), ("USER", name.clone()), ("LOGNAME", name)]
    }
}

/// The user who has called `sudo`, if this process is root's by it.
pub fn sudo_user(env: impl Fn(&str) -> Option<String>) -> Option<String> {
    let number: u32 = env("SUDO_UID")?.parse().ok()?;
    (rustix::process::geteuid().is_root() && number != 0)
        .then(|| env("SUDO_USER").unwrap_or_else(|| number.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_name_and_number() {
        let root: User = "root".parse().expect("every system has root");
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.environment().iter().any(|(name, value)| *name == "USER" && value == "root"));
        assert_eq!("0".parse::<User>().expect("by number"), root);
        let nobody: User = "4000000000:4000000001".parse().expect("numbers need no account");
        assert_eq!(
            (nobody.uid, nobody.gid, nobody.groups.as_slice()),
            (4_000_000_000, 4_000_000_001, &[4_000_000_001][..])
        );
        assert!(nobody.environment().is_empty());
        for (text, error) in [
            ("no such user", UserError::NoUser("no such user".to_owned())),
            ("4000000000", UserError::NoGroup(4_000_000_000)),
            ("", UserError::Form(String::new())),
            ("1:", UserError::Form("1:".to_owned())),
            ("root:root", UserError::Form("root:root".to_owned())),
        ] {
            assert_eq!(text.parse::<User>(), Err(error));
        }
    }
}
