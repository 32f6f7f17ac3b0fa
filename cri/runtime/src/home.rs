//! HOME, where a configuration does not say: what the container's own `/etc/passwd` has for the user.

use std::path::Path;

use berth_sys::path::Root;

/// The largest file that is looked at.
const LARGEST: u64 = 10 << 20;

/// Adds it where it is missing; `/` where nothing is known.
pub(crate) fn add(environment: &mut Vec<String>, root: &Path, uid: u32) {
    if environment.iter().any(|entry| entry.starts_with("HOME=")) {
        return;
    }
    let text = Root::open(root).and_then(|root| root.read("etc/passwd", LARGEST)).unwrap_or_default();
    let home = of(&String::from_utf8_lossy(&text), uid);
    environment.push(format!("HOME={}", home.as_deref().unwrap_or("/")));
}

fn of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, number, _, _, home, ..] = fields.as_slice() else { return None };
        (number.parse() == Ok(uid) && home.starts_with('/')).then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_first_entry_counts() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken:0\napp:x:7:7::/app:/sh\nlate:x:7:7::/late:\nnone:x:8:8:::\n";
        assert_eq!(of(passwd, 7).as_deref(), Some("/app"));
        assert_eq!(of(passwd, 0).as_deref(), Some("/root"));
        assert_eq!((of(passwd, 8), of("", 0)), (None, None));
    }
}
