//! How a path's mount propagates, read out of the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).

use crate::view::Propagation;

/// The propagation of the mount that `path` (absolute, resolved) lies on. Of mounts on one point, the last is on top.
pub fn propagation(mountinfo: &str, path: &str) -> Propagation {
    let mut best: Option<(usize, Propagation)> = None;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4).map(unescape) else { continue };
        if !below(path, &point) {
            continue;
        }
        let mut propagation = Propagation::Private;
        for optional in fields.skip(1).take_while(|field| *field != "-") {
            if optional.starts_with("shared:") {
                propagation = Propagation::Shared;
            } else if optional.starts_with("master:") && propagation == Propagation::Private {
                propagation = Propagation::Slave;
            }
        }
        if best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), propagation));
        }
    }
    best.map_or(Propagation::Private, |(_, propagation)| propagation)
}

fn below(path: &str, point: &str) -> bool {
    point == "/" || path.strip_prefix(point).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The kernel writes space, tab, line feed and backslash as three octal digits.
pub fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:22 / /mnt/a\\040b rw master:5 - tmpfs tmpfs rw
25 22 0:23 / /var rw shared:7 master:2 - tmpfs tmpfs rw
26 22 0:24 / /var rw - tmpfs tmpfs rw
";

    #[test]
    fn the_longest_and_topmost_mount_counts() {
        for (path, expected) in [
            ("/home", Propagation::Shared),
            ("/", Propagation::Shared),
            ("/proc/1", Propagation::Private),
            ("/processes", Propagation::Shared),
            ("/mnt/a b/c", Propagation::Slave),
            ("/var/lib", Propagation::Private),
        ] {
            assert_eq!(propagation(TABLE, path), expected, "{path}");
        }
        assert_eq!(propagation("", "/"), Propagation::Private);
        assert_eq!(propagation("garbage\n\n1 2 3 4", "/x"), Propagation::Private);
    }
}
