//! Second words of commands that are part of the name, by command. `COMMAND` lists them too.

/// Of `ACL`.
pub(super) const ACL: &[&str] = &[
    "CAT", "DELUSER", "DRYRUN", "GENPASS", "GETUSER", "HELP", "LIST", "LOAD", "LOG", "SAVE", "SETUSER", "USERS",
    "WHOAMI",
];

/// Of `CLIENT`.
pub(super) const CLIENT: &[&str] = &[
    "CACHING",
    "CAPA",
    "GETNAME",
    "GETREDIR",
    "HELP",
    "ID",
    "IMPORT-SOURCE",
    "INFO",
    "KILL",
    "LIST",
    "NO-EVICT",
    "NO-TOUCH",
    "PAUSE",
    "REPLY",
    "SETINFO",
    "SETNAME",
    "TRACKING",
    "TRACKINGINFO",
    "UNBLOCK",
    "UNPAUSE",
];

/// Of `CLUSTER`.
pub(super) const CLUSTER: &[&str] = &[
    "ADDSLOTS",
    "ADDSLOTSRANGE",
    "BUMPEPOCH",
    "COUNT-FAILURE-REPORTS",
    "COUNTKEYSINSLOT",
    "DELSLOTS",
    "DELSLOTSRANGE",
    "FAILOVER",
    "FLUSHSLOTS",
    "FORGET",
    "GETKEYSINSLOT",
    "HELP",
    "INFO",
    "KEYSLOT",
    "LINKS",
    "MEET",
    "MIGRATION",
    "MYID",
    "MYSHARDID",
    "NODES",
    "REPLICAS",
    "REPLICATE",
    "RESET",
    "SAVECONFIG",
    "SET-CONFIG-EPOCH",
    "SETSLOT",
    "SHARDS",
    "SLAVES",
    "SLOT-STATS",
    "SLOTS",
];

/// Of `COMMAND`.
pub(super) const COMMAND: &[&str] = &["COUNT", "DOCS", "GETKEYS", "GETKEYSANDFLAGS", "HELP", "INFO", "LIST"];

/// Of `COMMANDLOG`.
pub(super) const COMMANDLOG: &[&str] = &["GET", "HELP", "LEN", "RESET"];

/// Of `CONFIG`.
pub(super) const CONFIG: &[&str] = &["GET", "HELP", "RESETSTAT", "REWRITE", "SET"];

/// Of `FUNCTION`.
pub(super) const FUNCTION: &[&str] = &["DELETE", "DUMP", "FLUSH", "HELP", "KILL", "LIST", "LOAD", "RESTORE", "STATS"];

/// Of `LATENCY`.
pub(super) const LATENCY: &[&str] = &["DOCTOR", "GRAPH", "HELP", "HISTOGRAM", "HISTORY", "LATEST", "RESET"];

/// Of `MEMORY`.
pub(super) const MEMORY: &[&str] = &["DOCTOR", "HELP", "MALLOC-STATS", "PURGE", "STATS", "USAGE"];

/// Of `MODULE`.
pub(super) const MODULE: &[&str] = &["HELP", "LIST", "LOAD", "LOADEX", "UNLOAD"];

/// Of `OBJECT`.
pub(super) const OBJECT: &[&str] = &["ENCODING", "FREQ", "HELP", "IDLETIME", "REFCOUNT"];

/// Of `PUBSUB`.
pub(super) const PUBSUB: &[&str] = &["CHANNELS", "HELP", "NUMPAT", "NUMSUB", "SHARDCHANNELS", "SHARDNUMSUB"];

/// Of `SCRIPT`.
pub(super) const SCRIPT: &[&str] = &["DEBUG", "EXISTS", "FLUSH", "HELP", "KILL", "LOAD", "SHOW"];

/// Of `SENTINEL`.
pub(super) const SENTINEL: &[&str] = &[
    "CKQUORUM",
    "CONFIG",
    "DEBUG",
    "FAILOVER",
    "FLUSHCONFIG",
    "GET-MASTER-ADDR-BY-NAME",
    "GET-PRIMARY-ADDR-BY-NAME",
    "HELP",
    "INFO-CACHE",
    "IS-MASTER-DOWN-BY-ADDR",
    "IS-PRIMARY-DOWN-BY-ADDR",
    "MASTER",
    "MASTERS",
    "MONITOR",
    "MYID",
    "PENDING-SCRIPTS",
    "PRIMARIES",
    "PRIMARY",
    "REMOVE",
    "REPLICAS",
    "RESET",
    "SENTINELS",
    "SET",
    "SIMULATE-FAILURE",
    "SLAVES",
];

/// Of `SLOWLOG`.
pub(super) const SLOWLOG: &[&str] = &["GET", "HELP", "LEN", "RESET"];

/// Of `XGROUP`.
pub(super) const XGROUP: &[&str] = &["CREATE", "CREATECONSUMER", "DELCONSUMER", "DESTROY", "HELP", "SETID"];

/// Of `XINFO`.
pub(super) const XINFO: &[&str] = &["CONSUMERS", "GROUPS", "HELP", "STREAM"];
