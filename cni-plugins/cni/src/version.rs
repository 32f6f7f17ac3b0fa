//! Versions of the CNI specification.

use std::fmt;
use std::str::FromStr;

/// A version of the specification, as in `cniVersion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16, pub u16);

/// The text is not a version, or not one that exists.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a CNI version of the form MAJOR.MINOR.PATCH")]
pub struct VersionError(pub String);

impl Version {
    pub const V0_1_0: Self = Self(0, 1, 0);
    pub const V0_2_0: Self = Self(0, 2, 0);
    pub const V0_3_0: Self = Self(0, 3, 0);
    pub const V0_3_1: Self = Self(0, 3, 1);
    pub const V0_4_0: Self = Self(0, 4, 0);
    pub const V1_0_0: Self = Self(1, 0, 0);
    pub const V1_1_0: Self = Self(1, 1, 0);

    /// Every version that this crate speaks, oldest first.
    pub const SUPPORTED: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version that this crate speaks.
    pub const CURRENT: Self = Self::V1_1_0;

    /// Whether this crate speaks it.
    pub fn is_supported(self) -> bool {
        Self::SUPPORTED.contains(&self)
    }

    /// Whether CHECK exists in this version (SPEC 0.4.0).
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// Whether GC and STATUS exist in this version (SPEC 1.1.0).
    pub fn has_gc_and_status(self) -> bool {
        self >= Self::V1_1_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    /// Reads `MAJOR.MINOR.PATCH`; a missing minor or patch counts as 0, and an empty text as 0.1.0, as libcni has it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        let mut numbers = [0u16; 3];
        let mut parts = text.split('.');
        for number in &mut numbers {
            match parts.next() {
                Some(part) => *number = part.parse().map_err(|_| VersionError(text.to_owned()))?,
                None => break,
            }
        }
        match parts.next() {
            None => Ok(Self(numbers[0], numbers[1], numbers[2])),
            Some(_) => Err(VersionError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_ordered_and_gated() {
        assert_eq!("1.1.0".parse(), Ok(Version::V1_1_0));
        assert_eq!("".parse(), Ok(Version::V0_1_0));
        assert_eq!("1".parse(), Ok(Version::V1_0_0));
        assert!("1.x.0".parse::<Version>().is_err());
        assert!("1.0.0.0".parse::<Version>().is_err());
        assert!(Version::V0_4_0 > Version::V0_3_1);
        assert!(Version::V0_4_0.has_check() && !Version::V0_3_1.has_check());
        assert!(Version::V1_1_0.has_gc_and_status() && !Version::V1_0_0.has_gc_and_status());
        assert!(!Version(1, 2, 0).is_supported());
    }
}
