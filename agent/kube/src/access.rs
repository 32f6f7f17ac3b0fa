//! Who uses the agent's own API and may do so: the API server decides.

use async_trait::async_trait;
use berth_api::{Ask, Authenticator, Authorizer, Denied, User, Verdict};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

/// Asks by SubjectAccessReview (the caller caches).
#[derive(Debug)]
pub struct AccessReview {
    api: Api<SubjectAccessReview>,
    node: String,
}

impl AccessReview {
    /// For the node `node`.
    pub fn new(client: Client, node: impl Into<String>) -> Self {
        Self { api: Api::all(client), node: node.into() }
    }
}

#[async_trait]
impl Authorizer for AccessReview {
    async fn review(&self, ask: &Ask) -> Result<Verdict, Denied> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(ask.user.name.clone()),
                groups: Some(ask.user.groups.clone()),
                uid: Some(ask.user.uid.clone()).filter(|uid| !uid.is_empty()),
                extra: Some(ask.user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(ask.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(ask.subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| Denied { reason: error.to_string() })?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        Ok(if allowed { Verdict::Allowed } else { Verdict::NoOpinion })
    }
}

/// Asks by TokenReview whose a bearer token is (the caller caches).
#[derive(Debug)]
pub struct Tokens {
    api: Api<TokenReview>,
}

impl Tokens {
    /// With the node's own rights.
    pub fn new(client: Client) -> Self {
        Self { api: Api::all(client) }
    }
}

#[async_trait]
impl Authenticator for Tokens {
    async fn review(&self, token: &str) -> Result<Option<User>, Denied> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = self.api.create(&PostParams::default(), &review).await;
        let status = answer.map_err(|error| Denied { reason: error.to_string() })?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(None);
        }
        let info = status.user.unwrap_or_default();
        Ok(info.username.filter(|name| !name.is_empty()).map(|name| User {
            name,
            groups: info.groups.unwrap_or_default(),
            uid: info.uid.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        }))
    }
}
