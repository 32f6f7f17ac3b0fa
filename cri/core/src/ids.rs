//! Identifiers of sandboxes, containers and execs: 64 hex digits, as every tool around the CRI expects.

/// An id from 32 random bytes of the caller's.
pub fn from_random(bytes: [u8; 32]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Whether a text has the form of an id. Ids become parts of paths, so everything that reads one from outside asks.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why a shortened id names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("no such id")]
    Unknown,
    #[error("the id is ambiguous: give more digits")]
    Ambiguous,
}

/// The one id that starts with `prefix`; an id itself always resolves to itself.
pub fn resolve<'a>(prefix: &str, ids: impl IntoIterator<Item = &'a str>) -> Result<&'a str, Unresolved> {
    if prefix.is_empty() {
        return Err(Unresolved::Unknown);
    }
    let mut found = Err(Unresolved::Unknown);
    for id in ids {
        if id == prefix {
            return Ok(id);
        }
        if id.starts_with(prefix) {
            found = if found == Err(Unresolved::Unknown) { Ok(id) } else { Err(Unresolved::Ambiguous) };
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_64_hex_digits() {
        let id = from_random(std::array::from_fn(|n| u8::try_from(n * 37 % 256).expect("below 256")));
        assert!(is_id(&id), "{id}");
        assert!(id.starts_with("00254a"));
        for bad in ["", "00", &id[1..], &id.to_uppercase(), &format!("{}/", &id[1..]), &format!("../{}", &id[3..])] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_prefix_resolves_when_it_is_the_only_one() {
        let ids = ["abc1", "abc2", "abd0", "ab"];
        assert_eq!(resolve("abd", ids), Ok("abd0"));
        assert_eq!(resolve("ab", ids), Ok("ab"));
        assert_eq!(resolve("abc", ids), Err(Unresolved::Ambiguous));
        assert_eq!(resolve("x", ids), Err(Unresolved::Unknown));
        assert_eq!(resolve("", ids), Err(Unresolved::Unknown));
    }
}
