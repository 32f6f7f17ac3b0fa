//! Sees to it that an image is on the node.
//!
//! Source: `kubernetes@v1.37.2:pkg/kubelet/images/image_manager.go`.

use std::time::Instant;

use berth_agent_core::security::ImageUser;
use berth_agent_core::{ImageState, names, pull_secrets};
use berth_cri_proto::v1 as cri;

use super::{Fact, Job, Trouble, call, declared, words};
use crate::EventKind::{Normal, Warning};

/// Always, IfNotPresent or Never.
fn policy<'a>(declared: Option<&'a str>, image: &str) -> &'a str {
    match declared {
        Some(policy) if !policy.is_empty() => policy,
        _ if image.contains('@') => "IfNotPresent",
        _ => {
            let last = image.rsplit('/').next().unwrap_or(image);
            let latest = last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if latest { "Always" } else { "IfNotPresent" }
        }
    }
}

pub(super) async fn ensure(job: &Job, container: &str, image: &str) -> Result<Fact, Trouble> {
    let policy = policy(declared(&job.pod, container).and_then(|c| c.image_pull_policy.as_deref()), image);
    let event = |kind, reason, message: String| job.shared.event(&job.pod, Some(container), kind, reason, message);
    if policy != "Always" {
        let present = status(job, image).await.map_err(|status| {
            let message = format!("Failed to inspect image {image:?}: {}", words(&status));
            event(Warning, "InspectFailed", message.clone());
            Trouble::new("ImageInspectError", message)
        })?;
        if let Some(present) = present {
            event(Normal, "Pulled", format!("Container image {image:?} already present on machine"));
            return Ok(fact(image, present));
        }
        if policy == "Never" {
            let message = format!("Container image {image:?} is not present with pull policy of Never");
            event(Warning, "ErrImageNeverPull", message.clone());
            event(Warning, "Failed", "Error: ErrImageNeverPull".to_owned());
            return Err(Trouble::new("ErrImageNeverPull", message));
        }
    }
    let asked = Instant::now();
    let _turn = job.shared.pulls.acquire().await;
    event(Normal, "Pulling", format!("Pulling image {image:?}"));
    let began = Instant::now();
    let failed = |message: String| {
        event(Warning, "Failed", format!("Failed to pull image {image:?}: {message}"));
        event(Warning, "Failed", "Error: ErrImagePull".to_owned());
        Trouble::new("ErrImagePull", message)
    };
    let reference = pull(job, image).await.map_err(|status| failed(words(&status)))?;
    let present = status(job, &reference).await.map_err(|status| failed(words(&status)))?;
    let present = present.ok_or_else(|| failed(format!("{reference}: not there after the pull")))?;
    let message = format!(
        "Successfully pulled image {image:?} in {:.3?} ({:.3?} including waiting). Image size: {} bytes.",
        began.elapsed(),
        asked.elapsed(),
        present.size
    );
    event(Normal, "Pulled", message);
    Ok(fact(image, present))
}

fn fact(image: &str, present: cri::Image) -> Fact {
    let user = ImageUser { uid: present.uid.map(|uid| uid.value), name: present.username };
    Fact::Image(ImageState { image: image.to_owned(), reference: present.id }, user)
}

async fn status(job: &Job, image: &str) -> Result<Option<cri::Image>, tonic::Status> {
    let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
    let request = cri::ImageStatusRequest { image: Some(spec), verbose: false };
    match call(super::PATIENCE, job.shared.cri.image_status(request)).await {
        Ok(response) => Ok(response.image),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Pulls with each credential in turn, or without one when there is none.
async fn pull(job: &Job, image: &str) -> Result<String, tonic::Status> {
    let mut secrets = Vec::new();
    for reference in job.pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        match job.shared.objects.secret(names::namespace(&job.pod), &reference.name).await {
            Ok(secret) => secrets.push(secret),
            Err(error) => {
                let message = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                tracing::warn!(pod = names::describe(&job.pod), %error, "no pull secret");
                job.shared.event(&job.pod, None, Warning, "FailedToRetrieveImagePullSecret", message);
            }
        }
    }
    let credentials = pull_secrets::credentials(secrets.iter().map(AsRef::as_ref), image);
    let mut tries: Vec<Option<cri::AuthConfig>> = credentials.into_iter().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let sandbox_config = job.shared.sandbox_config(&job.pod, job.attempt, None).ok();
    let mut last = tonic::Status::internal("no attempt was made");
    for auth in tries {
        let spec = cri::ImageSpec { image: image.to_owned(), ..Default::default() };
        let request = cri::PullImageRequest { image: Some(spec), auth, sandbox_config: sandbox_config.clone() };
        // No time limit: a large image over a slow line is not an error.
        match job.shared.cri.pull_image(request).await {
            Ok(response) => return Ok(response.image_ref),
            Err(status) => last = status,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::policy;

    #[test]
    fn the_default_policy_follows_the_tag() {
        let rows = [
            (None, "busybox", "Always"),
            (None, "busybox:latest", "Always"),
            (None, "busybox:1", "IfNotPresent"),
            (None, "reg.example:5000/busybox", "Always"),
            (None, "busybox@sha256:0", "IfNotPresent"),
            (Some("Never"), "busybox", "Never"),
        ];
        for (declared, image, expected) in rows {
            assert_eq!(policy(declared, image), expected, "{image}");
        }
    }
}
