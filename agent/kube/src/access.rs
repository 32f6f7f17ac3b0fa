//! Who may use the agent's own API: the API server decides.

use async_trait::async_trait;
use berth_api::{Ask, Authorizer, Denied, Verdict};
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
