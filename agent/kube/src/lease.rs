//! The node's heartbeat: a Lease in kube-node-lease, renewed four times in its life.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::json;
use tokio::time::sleep;

use crate::node::timestamp;

const NAMESPACE: &str = "kube-node-lease";

/// Renews for ever.
pub(crate) async fn keep(client: Client, node: &str, uid: String, life: Duration) -> Infallible {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    loop {
        let pause = match renew(&api, node, &uid, life).await {
            Ok(()) => life / 4,
            Err(error) => {
                tracing::warn!(%node, %error, "the node's lease can't be renewed yet");
                (life / 20).max(Duration::from_millis(200))
            }
        };
        sleep(pause).await;
    }
}

async fn renew(api: &Api<Lease>, node: &str, uid: &str, life: Duration) -> Result<(), Error> {
    let now = MicroTime(timestamp());
    let seconds = i32::try_from(life.as_secs()).unwrap_or(i32::MAX);
    let patch = json!({"spec": {"holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": now}});
    match api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(Error::Api(answer)) if answer.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}
