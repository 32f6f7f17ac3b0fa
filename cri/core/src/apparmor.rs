//! The AppArmor profile that RuntimeDefault means (apparmor.d(5)).

/// The profile's name.
pub const DEFAULT_PROFILE: &str = "berth-default";

/// The profile for apparmor_parser(8), in one piece: a node may have none of the usual abstractions.
///
/// It stands behind the masked and read-only paths, seccomp and the capabilities, for a container that has got round one
/// of them: no mounts, nothing of the kernel's that is written through /proc and /sys, no process but its own kind to
/// trace or to signal. Denials win over what is allowed, whatever their order.
pub const DEFAULT_PROFILE_TEXT: &str = "\
profile berth-default flags=(attach_disconnected, mediate_deleted) {
  network,
  capability,
  file,
  umount,
  unix,
  dbus,

  # whoever looks after a container is not confined
  signal (receive) peer=unconfined,
  signal (send, receive) peer=berth-default,
  ptrace (trace, read, tracedby, readby) peer=berth-default,

  deny mount,
  deny pivot_root,

  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** w,
  deny /proc/sys/{abi,crypto,debug,dev,fs,net,sunrpc,user,vm}/** w,
  # of kernel/ the limits of System V's shared memory alone, which belong to the IPC namespace
  deny /proc/sys/kernel/{?,??,[^s]**,s[^h]**,sh[^m]**} w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # all of sysfs but the cgroups
  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wkl,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/fs/{[^c]**,c[^g]**} wkl,
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_has_its_name_wherever_it_names_itself() {
        assert!(DEFAULT_PROFILE_TEXT.starts_with(&format!("profile {DEFAULT_PROFILE} ")));
        let peers: Vec<&str> =
            DEFAULT_PROFILE_TEXT.split("peer=").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
        assert_eq!(peers, ["unconfined", DEFAULT_PROFILE, DEFAULT_PROFILE]);
    }
}
