//! Registry credentials, in the shape that CRI's AuthConfig gives them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Credentials of one pull. All fields may be empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// base64 of `user:password`; used when the two above are empty.
    pub auth: String,
    /// The host that they are for; empty: the registry that the image names.
    pub server_address: String,
    /// OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token to send as it is.
    pub registry_token: String,
}

/// What a registry client can do with an [`Auth`].
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Anonymous,
    Password { username: String, password: String },
    RefreshToken(String),
    Bearer(String),
}

impl fmt::Debug for Credential {
    /// The kind only: the rest is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password { .. } => "Password",
            Self::RefreshToken(_) => "RefreshToken",
            Self::Bearer(_) => "Bearer",
        })
    }
}

impl Auth {
    pub(crate) fn credential(&self) -> Credential {
        if !self.registry_token.is_empty() {
            return Credential::Bearer(self.registry_token.clone());
        }
        if !self.identity_token.is_empty() {
            return Credential::RefreshToken(self.identity_token.clone());
        }
        if !self.username.is_empty() || !self.password.is_empty() {
            return Credential::Password { username: self.username.clone(), password: self.password.clone() };
        }
        // Docker pads the decoded text with NUL in some versions; containerd trims it as well.
        let decoded = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().map(|text| text.trim_end_matches('\0')).and_then(|text| text.split_once(':')) {
            Some((username, password)) => {
                Credential::Password { username: username.to_owned(), password: password.to_owned() }
            }
            None => Credential::Anonymous,
        }
    }

    /// Whether these credentials may be sent to `host`, one of the hosts that serve `registry`.
    pub(crate) fn is_for(&self, host: &str, is_mirror: bool) -> bool {
        let server = self.server_address.trim();
        if server.is_empty() {
            return !is_mirror;
        }
        let server = server.split_once("://").map_or(server, |(_, rest)| rest);
        let server = server.split('/').next().unwrap_or_default();
        let docker = |host: &str| matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
        server == host || (docker(server) && docker(host))
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_credential_wins() {
        let auth = Auth { auth: STANDARD.encode("joe:a:b"), ..Auth::default() };
        assert!(auth.credential() == Credential::Password { username: "joe".into(), password: "a:b".into() });
        let auth = Auth { identity_token: "t".into(), ..auth };
        assert!(auth.credential() == Credential::RefreshToken("t".into()));
        assert!(Auth::default().credential() == Credential::Anonymous);
        assert!(!format!("{:?}", Auth { password: "geheim".into(), ..Auth::default() }).contains("geheim"));
    }

    #[test]
    fn credentials_go_to_their_server_only() {
        let auth = Auth::default();
        assert!(auth.is_for("r.example", false) && !auth.is_for("mirror.example", true));
        let auth = Auth { server_address: "https://index.docker.io/v1/".into(), ..Auth::default() };
        assert!(auth.is_for("registry-1.docker.io", false) && !auth.is_for("r.example", false));
    }
}
