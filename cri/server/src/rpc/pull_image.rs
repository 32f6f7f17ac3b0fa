//! PullImage. When the caller goes away its pull ends; others of the same image go on.

use std::sync::Arc;

use berth_cri_proto::v1::{AuthConfig, PullImageRequest, PullImageResponse};
use berth_image::Auth;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::required;
use crate::images::pull_status;
use crate::runtime::Runtime;

pub(crate) async fn call(
    runtime: &Arc<Runtime>,
    request: PullImageRequest,
    caller_gone: CancellationToken,
) -> Result<PullImageResponse, Status> {
    let name = required(request.image, "image")?.image;
    let auth = request.auth.map(credentials);
    let pulled = tokio::select! {
        pulled = runtime.images.pull(&name, auth, &runtime.registries) => pulled,
        () = caller_gone.cancelled() => {
            tracing::info!(image = name, "a pull whose caller has gone is ended");
            return Err(Status::cancelled("the caller has gone; the pull was ended"));
        }
    };
    let image = pulled.map_err(|error| {
        tracing::warn!(image = name, %error, "image not pulled");
        pull_status(&error)
    })?;
    tracing::info!(image = name, id = image.id, "image pulled");
    Ok(PullImageResponse { image_ref: image.id })
}

fn credentials(auth: AuthConfig) -> Auth {
    Auth {
        username: auth.username,
        password: auth.password,
        auth: auth.auth,
        server_address: auth.server_address,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    }
}
