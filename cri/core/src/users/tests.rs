use proptest::prelude::*;

use super::*;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
# a comment
www-data:x:33:33:www:/var/www:/usr/sbin/nologin

app:x:1000:1001::/home/app:/bin/sh
default-user:x:1000:1000::/home/default:/bin/sh
broken:x:abc:0::/:/bin/sh
huge:x:4294967296:0::/:/bin/sh
edge:x:2147483648:0::/:/bin/sh
short:x
nohome:x:7:7
nasty:x:8:8::relative/home:/bin/sh
";

const GROUP: &str = "\
root:x:0:
www-data:x:33:
staff:x:50:app,www-data
app:x:1001:app
extra:x:50000: app , nobody
bad:x:-1:app
worse:x:99999999999:app
";

fn resolve_text(text: &str, merge: bool, extra: &[u32]) -> Result<Identity, UserError> {
    resolve(&UserString::parse(text)?, merge, extra, PASSWD, GROUP)
}

fn identity(uid: u32, gid: u32, groups: &[u32], home: &str) -> Identity {
    Identity { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
}

#[test]
fn users_resolve_as_with_containerd() {
    for (text, expected) in [
        ("0", identity(0, 0, &[0], "/root")),
        ("root", identity(0, 0, &[0], "/root")),
        ("33", identity(33, 33, &[33, 50], "/var/www")),
        ("www-data", identity(33, 33, &[33, 50], "/var/www")),
        // The first entry of a number counts, and the group of one's own name is no supplementary group.
        ("1000", identity(1000, 1001, &[50, 1001, 50000], "/home/app")),
        ("4711", identity(4711, 0, &[0], "/")),
        ("4711:4712", identity(4711, 4712, &[4712], "/")),
        ("app:staff", identity(1000, 50, &[50, 50000], "/home/app")),
        ("1000:root", identity(1000, 0, &[0, 50, 50000], "/home/app")),
        ("nohome", identity(7, 7, &[7], "/")),
        ("nasty", identity(8, 8, &[8], "/")),
    ] {
        assert_eq!(resolve_text(text, true, &[]), Ok(expected), "{text}");
    }
}

#[test]
fn strict_takes_no_group_from_the_image() {
    assert_eq!(resolve_text("app", false, &[1234]), Ok(identity(1000, 1001, &[1001, 1234], "/home/app")));
    assert_eq!(resolve_text("app", true, &[1234]), Ok(identity(1000, 1001, &[50, 1001, 1234, 50000], "/home/app")));
}

#[test]
fn numbers_out_of_range_are_errors_and_never_names() {
    for text in ["4294967296", "2147483648", "-1", "99999999999999999999", "0:2147483648", "0:-5", "+4294967295"] {
        assert!(matches!(resolve_text(text, true, &[]), Err(UserError::OutOfRange { .. })), "{text}");
    }
    // Not even when the image has a user of that name.
    let passwd = "4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n";
    for text in ["4294967296", "-1"] {
        let parsed = UserString::parse(text);
        assert!(matches!(parsed, Err(UserError::OutOfRange { .. })), "{text} {parsed:?} {passwd}");
    }
    // "1" is user 1 and nothing else (CVE-2026-30892), even when a user is named so.
    let one = resolve(&UserString::parse("1").expect("a number"), true, &[], "1:x:0:0::/:/bin/sh\n", "");
    assert_eq!(one.map(|identity| identity.uid), Ok(1));
}

#[test]
fn entries_that_do_not_parse_are_no_entries() {
    for name in ["broken", "huge", "edge", "short", "#"] {
        assert_eq!(resolve_text(name, true, &[]), Err(UserError::UnknownUser { name: name.to_owned() }), "{name}");
    }
    for group in ["bad", "worse", "missing"] {
        let error = resolve_text(&format!("0:{group}"), true, &[]);
        assert_eq!(error, Err(UserError::UnknownGroup { name: group.to_owned() }), "{group}");
    }
}

#[test]
fn texts_that_name_nobody_are_malformed() {
    for text in ["", ":", "a:", ":a", "a:b:c", "a b", "a\nroot:x:0:0", "a\0", "a,b"] {
        assert!(matches!(UserString::parse(text), Err(UserError::Malformed { .. })), "{text:?}");
    }
}

#[test]
fn an_image_says_its_user() {
    assert_eq!(image_user("1002"), Some(Id::Number(1002)));
    assert_eq!(image_user("www-data"), Some(Id::Name("www-data".into())));
    assert_eq!(image_user("1003:1004"), Some(Id::Number(1003)));
    assert_eq!(image_user("www-data:1004"), Some(Id::Name("www-data".into())));
    assert_eq!(image_user(""), None);
}

proptest! {
    #[test]
    fn no_text_makes_a_user_beyond_the_range(user in "\\PC{0,24}", passwd in "[\\PC\n:]{0,200}", group in "[\\PC\n:]{0,200}") {
        if let Ok(parsed) = UserString::parse(&user)
            && let Ok(identity) = resolve(&parsed, true, &[], &passwd, &group)
        {
            prop_assert!(identity.uid <= MAX_ID && identity.gid <= MAX_ID);
            prop_assert!(identity.groups.iter().all(|group| *group <= MAX_ID));
            prop_assert!(identity.groups.contains(&identity.gid));
            prop_assert!(identity.home.starts_with('/'));
        }
    }

    #[test]
    fn a_number_in_range_is_that_user_whatever_the_files_say(uid in 0..=MAX_ID, passwd in "[a-z0-9:\n]{0,200}") {
        let identity = resolve(&UserString { user: Id::Number(uid), group: None }, true, &[], &passwd, "");
        prop_assert_eq!(identity.map(|identity| identity.uid), Ok(uid));
    }

    #[test]
    fn what_is_written_is_read(name in "[a-z_][a-z0-9_-]{0,30}", uid in 0..=MAX_ID, gid in 0..=MAX_ID) {
        let text = format!("{name}:x:{uid}:{gid}:g:/home/{name}:/bin/sh\n");
        let entries: Vec<_> = passwd(&text).collect();
        let home = format!("/home/{name}");
        prop_assert_eq!(entries, vec![Entry { name: &name, uid, gid, home: &home }]);
    }
}
