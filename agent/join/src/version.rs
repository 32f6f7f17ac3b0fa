//! Kubernetes versions, as far as they are compared.

use std::fmt;

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1.
    pub major: u32,
    /// What everybody means by the version.
    pub minor: u32,
}

impl Version {
    /// Reads `v1.37.2`, with whatever follows the minor number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?;
        let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
        Some(Self { major, minor: minor[..digits].parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_builds_are_read() {
        let version = |text| Version::parse(text).map(|v| v.to_string());
        assert_eq!(version("v1.37.2").as_deref(), Some("1.37"));
        assert_eq!(version("1.35.0-rc.1+abc").as_deref(), Some("1.35"));
        assert_eq!(version("v1.9").as_deref(), Some("1.9"));
        for bad in ["", "v", "v1", "stable-1", "v1.x"] {
            assert_eq!(version(bad), None, "{bad}");
        }
        assert!(Version::parse("v1.9.0") < Version::parse("v1.35.0"));
    }
}
