//! What a connection is subscribed to, and which replies are about that.

use super::table::Channels;

/// What the first element of an array or push message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// Nothing of pub/sub.
    Other,
    /// A message for a subscriber.
    Message,
    /// Confirms one channel of SUBSCRIBE and its kin.
    Subscribed(Channels),
    /// Confirms one channel of UNSUBSCRIBE and its kin.
    Unsubscribed(Channels),
}

impl Topic {
    /// By the word, and the number of elements that belongs to it.
    pub(super) fn parse(word: &[u8], elements: u64) -> Self {
        match (word, elements) {
            (b"message" | b"smessage", 3) | (b"pmessage", 4) => Self::Message,
            (b"subscribe", 3) => Self::Subscribed(Channels::Channel),
            (b"psubscribe", 3) => Self::Subscribed(Channels::Pattern),
            (b"ssubscribe", 3) => Self::Subscribed(Channels::Shard),
            (b"unsubscribe", 3) => Self::Unsubscribed(Channels::Channel),
            (b"punsubscribe", 3) => Self::Unsubscribed(Channels::Pattern),
            (b"sunsubscribe", 3) => Self::Unsubscribed(Channels::Shard),
            _ => Self::Other,
        }
    }

    /// True for confirmations.
    pub(super) fn is_confirmation(self) -> bool {
        matches!(self, Self::Subscribed(_) | Self::Unsubscribed(_))
    }
}

/// Subscriptions, counted from the totals in the confirmations, because names of channels are not kept.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Channels and patterns together, as the server counts them.
    total: u64,
    channels: u64,
    patterns: u64,
    shards: u64,
    /// Messages came although no subscription was seen.
    assumed: bool,
}

impl Subscriptions {
    /// Takes a confirmation with the total that it names.
    pub(super) fn confirm(&mut self, topic: Topic, total: u64) {
        let kind = match topic {
            Topic::Subscribed(kind) | Topic::Unsubscribed(kind) => kind,
            Topic::Other | Topic::Message => return,
        };
        if kind == Channels::Shard {
            self.shards = total;
        } else {
            let before = std::mem::replace(&mut self.total, total);
            let count = if kind == Channels::Channel { &mut self.channels } else { &mut self.patterns };
            match topic {
                Topic::Subscribed(_) if total > before => *count += 1,
                Topic::Unsubscribed(_) if total < before => *count = count.saturating_sub(1),
                _ => {}
            }
        }
        self.assumed &= self.any_counted();
    }

    /// Confirmations that an UNSUBSCRIBE without arguments gets: one per channel, and one if there is none.
    pub(super) fn expected(&self, kind: Channels) -> u32 {
        let count = match kind {
            Channels::Channel => self.channels,
            Channels::Pattern => self.patterns,
            Channels::Shard => self.shards,
        };
        u32::try_from(count.max(1)).unwrap_or(u32::MAX)
    }

    /// Messages came: there must be a subscription.
    pub(super) fn assume(&mut self) {
        self.assumed = true;
    }

    /// Whether messages may come.
    pub(super) fn any(&self) -> bool {
        self.assumed || self.any_counted()
    }

    fn any_counted(&self) -> bool {
        self.total > 0 || self.shards > 0
    }
}
