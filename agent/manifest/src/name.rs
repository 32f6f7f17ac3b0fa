//! Names of objects (RFC 1123).

/// A DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// A DNS subdomain, as the API limits it: as a whole, its parts may be longer than a label.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A label of any length.
fn is_part(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(inner) && bytes.last().is_some_and(inner) && bytes.iter().all(|b| inner(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_subdomain_may_be_longer_than_a_label() {
        let long = "a".repeat(64);
        assert!(is_label(&long[1..]) && !is_label(&long) && is_subdomain(&long));
        assert!(is_subdomain(&format!("a-1.{}-a", &long[1..])));
        for bad in ["", ".", "a..b", "-a", "a-", "a_b", "A", "ä", &format!("{long}_"), &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad:?}");
        }
    }
}
