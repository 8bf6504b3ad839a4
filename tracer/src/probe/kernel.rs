//! What must be known of the running kernel: offsets of structure fields, from its BTF.

use std::path::Path;

use btf_rs::{Btf, Type};
use tracer_common::map::KernelOffsets;

/// Where kernels since 5.2 describe their own types.
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel's types could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file is not there: CONFIG_DEBUG_INFO_BTF is off.
    #[error("cannot read the kernel's type information at {BTF_PATH}: a kernel with CONFIG_DEBUG_INFO_BTF=y is needed")]
    NoBtf(#[source] btf_rs::Error),
    /// A field is not where it was in any kernel so far.
    #[error("the kernel's type information has no field {0}: this kernel is not supported yet")]
    NoField(&'static str),
}

/// The kernel's types. Reading them takes 25 MB and some 50 ms: once is enough.
pub struct KernelTypes(Btf);

impl KernelTypes {
    /// Reads them.
    pub fn read() -> Result<Self, KernelError> {
        Btf::from_file(Path::new(BTF_PATH)).map(Self).map_err(KernelError::NoBtf)
    }

    /// Whether the running kernel has a tracepoint that eBPF programs can be attached to.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.0.resolve_types_by_name(&format!("btf_trace_{name}")).is_ok_and(|types| !types.is_empty())
    }

    /// The offsets that the programs need.
    pub fn offsets(&self) -> Result<KernelOffsets, KernelError> {
        offsets(&self.0)
    }
}

fn offsets(btf: &Btf) -> Result<KernelOffsets, KernelError> {
    let at = |path: &'static str| offset_of(btf, path).ok_or(KernelError::NoField(path));
    Ok(KernelOffsets {
        task_tgid: at("task_struct.tgid")?,
        task_mm: at("task_struct.mm")?,
        task_signal: at("task_struct.signal")?,
        signal_live: at("signal_struct.live")?,
        signal_flags: at("signal_struct.flags")?,
        signal_exec: at("signal_struct.group_exec_task").or_else(|_| at("signal_struct.group_exit_task"))?,
        mm_start_code: at("mm_struct.start_code")?,
        mm_exe_file: at("mm_struct.exe_file")?,
        task_flags: at("task_struct.flags")?,
        task_uring: offset_of(btf, "task_struct.io_uring").unwrap_or(0),
        task_files: at("task_struct.files")?,
        task_fsbase: at("task_struct.thread.fsbase")?,
        files_fdt: at("files_struct.fdt")?,
        fdtable_fd: at("fdtable.fd")?,
        fdtable_max: at("fdtable.max_fds")?,
        binprm_file: at("linux_binprm.file")?,
        inode_number: at("inode.i_ino")?,
        inode_superblock: at("inode.i_sb")?,
        superblock_device: at("super_block.s_dev")?,
        file_inode: at("file.f_inode")?,
        inode_mode: at("inode.i_mode")?,
        file_private: at("file.private_data")?,
        socket_sk: at("socket.sk")?,
        socket_in_alloc: at("socket_alloc.socket")?,
        inode_in_alloc: at("socket_alloc.vfs_inode")?,
        sock_socket: at("sock.sk_socket")?,
        sock_type: at("sock.sk_type")?,
        sock_protocol: at("sock.sk_protocol")?,
        sock_shutdown: at("sock.sk_shutdown")?,
        tcp_written: at("tcp_sock.write_seq")?,
        tcp_read: at("tcp_sock.copied_seq")?,
        tcp_upper: at("inet_connection_sock.icsk_ulp_ops")?,
        sock_family: at("sock.__sk_common.skc_family")?,
        sock_daddr: at("sock.__sk_common.skc_daddr")?,
        sock_saddr: at("sock.__sk_common.skc_rcv_saddr")?,
        sock_dport: at("sock.__sk_common.skc_dport")?,
        sock_num: at("sock.__sk_common.skc_num")?,
        sock_daddr6: at("sock.__sk_common.skc_v6_daddr")?,
        sock_saddr6: at("sock.__sk_common.skc_v6_rcv_saddr")?,
        sock_net: at("sock.__sk_common.skc_net")?,
        net_number: at("net.ns.inum")?,
        unix_peer: at("unix_sock.peer")?,
        known: 1,
    })
}

/// Byte offset of `struct.field.field`; anonymous members are looked through.
fn offset_of(btf: &Btf, path: &str) -> Option<u32> {
    let mut parts = path.split('.');
    let mut current =
        btf.resolve_types_by_name(parts.next()?).ok()?.into_iter().find(|found| matches!(found, Type::Struct(_)))?;
    let mut bits = 0;
    for part in parts {
        let (offset, member) = member(btf, &current, part)?;
        bits += offset;
        current = member;
    }
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Bit offset and type of a member of a struct or union.
fn member(btf: &Btf, of: &Type, name: &str) -> Option<(u32, Type)> {
    let (Type::Struct(structure) | Type::Union(structure)) = of else { return None };
    for member in &structure.members {
        let found = resolve(btf, btf.resolve_chained_type(member).ok()?);
        match btf.resolve_name(member).unwrap_or_default().as_str() {
            found_name if found_name == name => return Some((member.bit_offset(), found?)),
            "" => {
                if let Some((offset, inner)) = self::member(btf, &found?, name) {
                    return Some((member.bit_offset() + offset, inner));
                }
            }
            _ => {}
        }
    }
    None
}

/// Looks through typedefs and qualifiers.
fn resolve(btf: &Btf, mut found: Type) -> Option<Type> {
    while let Type::Typedef(_) | Type::Const(_) | Type::Volatile(_) | Type::TypeTag(_) = found {
        found = btf.resolve_chained_type(found.as_btf_type()?).ok()?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #[test]
    fn running_kernel_has_every_field() {
        let offsets = super::KernelTypes::read().and_then(|types| types.offsets()).expect("BTF");
        assert_eq!(offsets.known, 1);
        assert_ne!(offsets.task_fsbase, 0);
        assert_ne!(offsets.sock_daddr6, offsets.sock_saddr6);
    }
}
