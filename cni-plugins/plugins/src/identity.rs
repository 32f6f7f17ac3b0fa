//! The identity of an attachment, in the forms in which the kernel keeps it for us.

use berth_cni::{Request, ValidAttachment};
use sha2::{Digest, Sha256};

/// What `nft` shows of a comment. Longer identities are hashed.
const LONGEST: usize = 127;

/// Whom a link, an element or a rule belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `NETWORK CONTAINER IFNAME`; none of them holds a space.
    text: String,
}

impl Identity {
    pub(crate) fn of(request: &Request) -> Self {
        Self::new(&request.network, &request.container_id, &request.ifname)
    }

    pub(crate) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        let text = format!("{network} {container_id} {ifname}");
        if text.len() <= LONGEST {
            return Self { text };
        }
        Self { text: format!("{} #{}", hashed_network(network), hash(&text, 32)) }
    }

    /// As a comment.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// As the alias of a link.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS}{}", self.text)
    }

    /// The name of the host's end of the attachment's veth pair: the same every time, so that what a crash left is found.
    pub(crate) fn veth(&self) -> String {
        veth_of(&self.text)
    }
}

/// The same for an identity that was read from a comment.
pub(crate) fn veth_of(comment: &str) -> String {
    format!("veth{}", hash(comment, 11))
}

const ALIAS: &str = "berth-cni ";

/// The attachments of one network that are still wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    prefixes: [String; 2],
    identities: Vec<Identity>,
}

impl Wanted {
    pub(crate) fn new(network: &str, valid: &[ValidAttachment]) -> Self {
        let identity = |valid: &ValidAttachment| Identity::new(network, &valid.container_id, &valid.ifname);
        Self {
            prefixes: [format!("{network} "), format!("{} #", hashed_network(network))],
            identities: valid.iter().map(identity).collect(),
        }
    }

    /// Whether a comment names an attachment of the network that is not wanted any more.
    pub(crate) fn is_stale(&self, comment: &str) -> bool {
        self.prefixes.iter().any(|prefix| comment.starts_with(prefix))
            && !self.identities.iter().any(|identity| identity.text == comment)
    }

    /// The same of a link's alias.
    pub(crate) fn is_stale_alias(&self, alias: &str) -> bool {
        alias.strip_prefix(ALIAS).is_some_and(|text| self.is_stale(text))
    }
}

fn hashed_network(network: &str) -> String {
    format!("#{}", hash(network, 16))
}

/// The first `digits` hexadecimal digits of the text's SHA-256.
fn hash(text: &str, digits: usize) -> String {
    let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..digits].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_stable_and_belong_to_their_network() {
        let identity = Identity::new("pods", "c1", "eth0");
        assert_eq!(identity.text(), "pods c1 eth0");
        assert_eq!(identity.veth(), Identity::new("pods", "c1", "eth0").veth());
        assert_eq!(identity.veth().len(), 15);
        assert_ne!(identity.veth(), Identity::new("pods", "c1", "eth1").veth());

        let valid = [ValidAttachment { container_id: "c1".to_owned(), ifname: "eth0".to_owned() }];
        let wanted = Wanted::new("pods", &valid);
        assert!(!wanted.is_stale("pods c1 eth0"));
        assert!(wanted.is_stale("pods c2 eth0"));
        assert!(!wanted.is_stale("pods2 c2 eth0"), "of another network");
        assert!(wanted.is_stale_alias("berth-cni pods c2 eth0"));
        assert!(!wanted.is_stale_alias("pods c2 eth0"), "not an alias of ours");
    }

    #[test]
    fn long_identities_are_hashed_and_still_recognised() {
        let network = "n".repeat(100);
        let long = Identity::new(&network, &"c".repeat(64), "eth0");
        assert!(long.text().len() <= LONGEST);
        let wanted = Wanted::new(&network, &[]);
        assert!(wanted.is_stale(long.text()));
        assert!(!Wanted::new("other", &[]).is_stale(long.text()));
        let valid = [ValidAttachment { container_id: "c".repeat(64), ifname: "eth0".to_owned() }];
        assert!(!Wanted::new(&network, &valid).is_stale(long.text()));
    }
}
