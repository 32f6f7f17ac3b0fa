//! Images as the CRI shows them, and failures of their store as it reports them.

use berth_cri_core::ImageView;
use berth_cri_proto::v1 as cri;
use berth_image::{Image, PullError, StoreError};
use tonic::Status;

/// An image in an answer.
pub(crate) fn describe(image: &Image) -> cri::Image {
    let user = ImageView::new(&image.config, String::new(), String::new()).user;
    let user = user.split(':').next().unwrap_or_default();
    // The one or the other, never both.
    let uid = user.parse().ok().map(|value| cri::Int64Value { value });
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        uid,
        spec: Some(cri::ImageSpec { image: image.id.clone(), ..cri::ImageSpec::default() }),
        pinned: image.pinned,
    }
}

/// The gRPC code that tells a client what to do about it.
pub(crate) fn pull_status(error: &PullError) -> Status {
    let text = error.to_string();
    match error {
        PullError::Reference { .. } => Status::invalid_argument(text),
        PullError::NotFound { .. } => Status::not_found(text),
        PullError::Unauthorized { .. } => Status::permission_denied(text),
        PullError::Unreachable { .. } => Status::unavailable(text),
        PullError::DigestMismatch { .. } | PullError::BadManifest { .. } | PullError::BadLayer { .. } => {
            Status::data_loss(text)
        }
        PullError::TooLarge { .. } | PullError::DiskFull { .. } => Status::resource_exhausted(text),
        PullError::Config { .. } => Status::failed_precondition(text),
        PullError::Store(_) => Status::internal(text),
    }
}

/// As [`pull_status`], for everything else that the store does.
pub(crate) fn store_status(error: &StoreError) -> Status {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    Status::internal(format!("{error}{cause}"))
}
