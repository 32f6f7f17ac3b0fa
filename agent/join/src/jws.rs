//! The signature over cluster-info: a detached JWS in compact form.
//!
//! `HEADER..SIGNATURE` (RFC 7515, appendix F): base64url without padding, HMAC-SHA-256 over `HEADER.PAYLOAD` with the
//! token's secret. The control plane's bootstrap signer makes it (`kubernetes@v1.37.2:cluster-bootstrap/token/jws/jws.go`).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::Token;

/// No signature by the control plane is longer; what is longer is not looked at.
const LONGEST: usize = 4096;

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Whether `signature` is that of `content` by `token`. The comparison takes the same time wherever they differ.
pub(crate) fn verify(signature: &str, content: &str, token: &Token) -> bool {
    check(signature, content, token).is_some()
}

fn check(signature: &str, content: &str, token: &Token) -> Option<()> {
    if signature.len() > LONGEST {
        return None;
    }
    let (encoded_header, tag) = signature.split_once("..")?;
    let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded_header).ok()?).ok()?;
    // The algorithm is ours to choose, not the signer's: "none" and the like end here.
    if header.alg != "HS256" || header.kid != token.id() {
        return None;
    }
    let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret().as_bytes());
    let signed = format!("{encoded_header}.{}", URL_SAFE_NO_PAD.encode(content));
    hmac::verify(&key, signed.as_bytes(), &tag).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl dgst -sha256 -hmac 0123456789abcdef` over header and payload.
    const CONTENT: &str = "apiVersion: v1\nkind: Config\n";
    const SIGNATURE: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..vH_kT4yiol-nrAWgjfCYqvum5wsKETXe0S7OOp1VgnE";

    fn sign(header: &str, content: &str, secret: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(header);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
    }

    fn token() -> Token {
        Token::parse("abcdef.0123456789abcdef").expect("a token")
    }

    #[test]
    fn another_implementation_s_signature_is_good() {
        assert!(verify(SIGNATURE, CONTENT, &token()));
        assert_eq!(sign(r#"{"alg":"HS256","kid":"abcdef"}"#, CONTENT, "0123456789abcdef"), SIGNATURE);
    }

    #[test]
    fn only_the_token_s_signature_over_this_content_is_good() {
        let good = sign(r#"{"alg":"HS256","kid":"abcdef"}"#, "content", "0123456789abcdef");
        assert!(verify(&good, "content", &token()));
        let cases = [
            ("other content", good.clone(), "contents"),
            ("other secret", sign(r#"{"alg":"HS256","kid":"abcdef"}"#, "content", "0123456789abcdeg"), "content"),
            ("other id", sign(r#"{"alg":"HS256","kid":"abcdeg"}"#, "content", "0123456789abcdef"), "content"),
            ("no id", sign(r#"{"alg":"HS256"}"#, "content", "0123456789abcdef"), "content"),
            ("other algorithm", sign(r#"{"alg":"HS512","kid":"abcdef"}"#, "content", "0123456789abcdef"), "content"),
            ("none", format!("{}..", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"abcdef"}"#)), "content"),
            ("cut off", good[..good.len() - 1].to_owned(), "content"),
            ("not detached", good.replace("..", ".Y29udGVudA."), "content"),
            ("empty", String::new(), "content"),
            ("dots", "....".to_owned(), "content"),
            ("endless", format!("{good}{}", "A".repeat(LONGEST)), "content"),
        ];
        for (name, signature, content) in cases {
            assert!(!verify(&signature, content, &token()), "{name}");
        }
    }
}
