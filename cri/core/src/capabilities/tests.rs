use super::*;

fn asked(add: &[&str], drop: &[&str], ambient: &[&str]) -> cri::Capability {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    cri::Capability {
        add_capabilities: list(add),
        drop_capabilities: list(drop),
        add_ambient_capabilities: list(ambient),
    }
}

fn mask(list: &[&str]) -> u64 {
    list.iter().map(|name| parse(name).expect("known")).sum()
}

#[test]
fn bits_are_those_of_the_kernel() {
    for (name, bit) in
        [("CHOWN", 0), ("cap_net_raw", 13), ("SYS_ADMIN", 21), ("CAP_SETFCAP", 31), ("CHECKPOINT_RESTORE", 40)]
    {
        assert_eq!(parse(name), Some(1 << bit), "{name}");
    }
    assert_eq!(parse("CAP_CAP_CHOWN"), None);
    assert_eq!(DEFAULT.count_ones(), 14);
    let mut default: Vec<_> = names(DEFAULT).collect();
    default.sort();
    assert_eq!(
        default.join(" "),
        "CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_MKNOD CAP_NET_BIND_SERVICE \
         CAP_NET_RAW CAP_SETFCAP CAP_SETGID CAP_SETPCAP CAP_SETUID CAP_SYS_CHROOT"
    );
}

#[test]
fn every_capability_survives_the_oci_form() {
    for (bit, name) in NAMES.iter().enumerate() {
        let sets = Capabilities { bounding: 1 << bit, ..Capabilities::default() };
        assert_eq!(from_oci(&to_oci(&sets)), sets, "{name}");
    }
}

#[test]
fn sets_follow_the_rules() {
    let none = 0;
    let tables: [(&[&str], &[&str], u64, u64); 10] = [
        (&[], &[], ALL, DEFAULT),
        (&["NET_ADMIN"], &[], ALL, DEFAULT | mask(&["NET_ADMIN"])),
        (&[], &["NET_RAW"], ALL, DEFAULT & !mask(&["NET_RAW"])),
        (&["ALL"], &[], ALL, ALL),
        (&["all"], &["SYS_ADMIN"], ALL, ALL & !mask(&["SYS_ADMIN"])),
        (&[], &["ALL"], ALL, none),
        (&["NET_BIND_SERVICE"], &["ALL"], ALL, mask(&["NET_BIND_SERVICE"])),
        (&["ALL"], &["ALL"], ALL, none),
        // All means what the runtime itself has.
        (&["ALL"], &[], ALL & !mask(&["SYS_RESOURCE"]), ALL & !mask(&["SYS_RESOURCE"])),
        (&[], &[], ALL & !mask(&["MKNOD"]), DEFAULT & !mask(&["MKNOD"])),
    ];
    for (add, drop, bounding, expected) in tables {
        let sets = sets(&asked(add, drop, &[]), false, bounding).expect("accepted");
        let expected =
            Capabilities { bounding: expected, effective: expected, permitted: expected, inheritable: 0, ambient: 0 };
        assert_eq!(sets, expected, "add {add:?} drop {drop:?}");
    }
}

#[test]
fn ambient_capabilities_are_in_all_five_sets() {
    let sets = sets(&asked(&[], &["ALL"], &["NET_ADMIN"]), false, ALL).expect("accepted");
    let net_admin = mask(&["NET_ADMIN"]);
    assert_eq!(
        sets,
        Capabilities {
            bounding: net_admin,
            effective: net_admin,
            permitted: net_admin,
            inheritable: net_admin,
            ambient: net_admin
        }
    );
}

#[test]
fn privileged_has_all_but_inheritable() {
    let bounding = ALL & !mask(&["SYS_RESOURCE"]);
    let sets = sets(&asked(&[], &["ALL"], &[]), true, bounding).expect("accepted");
    assert_eq!(sets, Capabilities { bounding, effective: bounding, permitted: bounding, inheritable: 0, ambient: 0 });
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let error = sets(&asked(&["FLY"], &[], &[]), false, ALL).expect_err("refused");
    assert_eq!(error.field, "linux.security_context.capabilities.add_capabilities");
    assert!(error.reason.contains("FLY"), "{error}");
    let error = sets(&asked(&[], &["NET_RWA"], &[]), false, ALL).expect_err("refused");
    assert_eq!(error.field, "linux.security_context.capabilities.drop_capabilities");
    let error = sets(&asked(&["SYS_RESOURCE"], &[], &[]), false, DEFAULT).expect_err("refused");
    assert!(error.reason.contains("CAP_SYS_RESOURCE"), "{error}");
}
