//! Flags of the services: `--name value`, nothing else.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

/// The flags that a service was started with.
#[derive(Debug)]
pub struct Settings(HashMap<String, String>);

impl Settings {
    /// From the command line.
    ///
    /// # Errors
    /// An argument is not a flag, or has no value.
    pub fn from_args() -> Result<Self> {
        let mut flags = HashMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else { bail!("{argument:?} is not a flag") };
            let value = arguments.next().with_context(|| format!("--{name} has no value"))?;
            flags.insert(name.to_owned(), value);
        }
        Ok(Self(flags))
    }

    /// A flag that must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("--{name} is missing"))
    }

    /// A flag with a default.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn get_or<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
        &self,
        name: &str,
        default: T,
    ) -> Result<T> {
        self.0.get(name).map_or(Ok(default), |value| value.parse().with_context(|| format!("--{name} {value}")))
    }
}
