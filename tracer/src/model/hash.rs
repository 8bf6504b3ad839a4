//! Hash maps of what is looked up for every record: a quicker hash than the standard library's, which took 8 % of the correlator's
//! time. It is seeded at random, so nobody outside can choose keys that collide.

use foldhash::fast::RandomState;

/// A map.
pub type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;
/// A set.
pub type HashSet<K> = std::collections::HashSet<K, RandomState>;
