//! The only owner of kernel objects: loads the eBPF programs, attaches and detaches them.
