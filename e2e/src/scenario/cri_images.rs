//! Images as a CRI client sees them: by tag, by digest and by id, from two registries, and gone when they are removed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use berth_cri_proto::v1 as cri;

use crate::cri::{Cri, Start};
use crate::leak::{Folders, Picture};
use crate::registry::Registry;
use crate::runtime::Client;
use crate::{http, images, paths, wait};

const REGISTRY: &str = "127.0.0.1:5000";
const STAGING: &str = "gcr.io/k8s-staging-cri-tools";
/// One image in two registries.
const TWINS: [&str; 2] = ["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"];
/// How many ask at once that an image be removed.
const CROWD: usize = 5;

/// Plays the scenario; call it in a house.
///
/// # Errors
/// What was not as it should be.
pub fn play() -> Result<()> {
    let dir = paths::scratch("cri-images")?;
    let registry = Registry::start(&dir.join("registry"), REGISTRY)?;
    images::push(&registry)?;
    let certs = images::mirror(&dir, registry.address())?;
    let own = dir.join("berth");
    let berth = Cri::start(Start { log_level: "debug", registries: Some(&certs), ..Start::new(&own) })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Not the name by which any of its tags is known.
    let digest = registry.push_index("k8s-staging-cri-tools/by-digest:1", &images::httpd()?)?;
    runtime.block_on(tell(&berth, &digest))?;
    berth.stop()?;
    registry.stop()?;
    fs::remove_dir_all(dir)?;
    Ok(())
}

async fn tell(berth: &Cri, digest: &str) -> Result<()> {
    let mut client = Client::connect(berth.socket()).await?;
    // The bridge stays, once it is there.
    Box::pin(run_once(&mut client, TWINS[0])).await?;
    client.remove(TWINS[0]).await?;
    let root = paths::scratch_path("cri-images").join("berth/root");
    let folders = Folders::new(&[&root]);
    let before = Picture::take(&folders)?;

    names(&mut client, digest).await?;
    println!("cri-images: an image goes by what it was pulled as, and every name of it means the same");
    one_image(&mut client).await?;
    println!("cri-images: three tags, and two registries, are one image; with one name all go");
    crowd(&mut client).await?;
    println!("cri-images: {CROWD} removals at once all succeed, and it is gone after each");
    users(&mut client).await?;
    println!("cri-images: the user of an image is a number or a name");
    Box::pin(in_use(&mut client)).await?;
    println!("cri-images: a container runs by its image's id, and on when the image is removed");
    Box::pin(page(&mut client, &format!("{STAGING}/by-digest@{digest}"))).await?;
    println!("cri-images: the web server's image answers on its pod's address");

    before.await_equal(&folders, &[])
}

async fn names(client: &mut Client, digest: &str) -> Result<()> {
    for (asked, known) in [
        ("test-image-tag:test", Some("test-image-tag:test")),
        ("test-image-latest", Some("test-image-latest:latest")),
        (&format!("by-digest@{digest}"), None),
    ] {
        let asked = format!("{STAGING}/{asked}");
        let id = client.pull(&asked).await?;
        let image = client.image(&asked).await?.with_context(|| format!("{asked} is not there"))?;
        ensure!(image.id == id, "{asked}: PullImage says {id}, ImageStatus {}", image.id);
        let tags: Vec<String> = known.iter().map(|known| format!("{STAGING}/{known}")).collect();
        ensure!(image.repo_tags == tags, "{asked}: repo_tags {:?}", image.repo_tags);
        ensure!(image.size > 0, "{asked} has no size");
        match image.repo_digests.as_slice() {
            [one] if known.is_none() => ensure!(*one == asked, "{asked}: repo_digests {one:?}"),
            [one] => ensure!(one.contains("@sha256:"), "{asked}: repo_digests {one:?}"),
            other => bail!("{asked}: repo_digests {other:?}"),
        }
        for name in image.repo_tags.iter().chain(&image.repo_digests).chain([&id]) {
            let same = client.image(name).await?;
            ensure!(same.as_ref() == Some(&image), "{name} means {same:?}, {asked} means {image:?}");
        }
        client.remove(&id).await?;
        ensure!(client.image(&asked).await?.is_none(), "{asked} is there after its removal");
    }
    ensure!(client.list().await?.is_empty(), "images are left");
    Ok(())
}

async fn one_image(client: &mut Client) -> Result<()> {
    let tags = ["1", "2", "3"].map(|tag| format!("{STAGING}/test-image-tags:{tag}"));
    for names in [tags.to_vec(), TWINS.map(str::to_owned).to_vec()] {
        let mut ids = Vec::new();
        for name in &names {
            ids.push(client.pull(name).await?);
        }
        ids.dedup();
        ensure!(ids.len() == 1, "{names:?} are {ids:?}");
        let images = client.list().await?;
        let [image] = images.as_slice() else { bail!("{} images are listed", images.len()) };
        let mut known = names.clone();
        known.sort();
        ensure!(image.repo_tags == known, "repo_tags {:?}", image.repo_tags);
        client.remove(&names[0]).await?;
        for name in names.iter().chain(&ids) {
            ensure!(client.image(name).await?.is_none(), "{name} is there after the removal of {}", names[0]);
        }
    }
    Ok(())
}

async fn crowd(client: &mut Client) -> Result<()> {
    let id = client.pull(&format!("{STAGING}/test-image-1:latest")).await?;
    let mut removals = tokio::task::JoinSet::new();
    for _ in 0..CROWD {
        let (mut client, id) = (client.clone(), id.clone());
        removals.spawn(async move {
            client.remove(&id).await?;
            ensure!(client.image(&id).await?.is_none(), "it is there after its removal");
            Ok(())
        });
    }
    while let Some(removal) = removals.join_next().await {
        removal??;
    }
    client.remove(&id).await.context("an image that is gone")
}

async fn users(client: &mut Client) -> Result<()> {
    for (image, uid, name) in [
        ("uid", Some(1002), ""),
        ("username", None, "www-data"),
        ("uid-group", Some(1003), ""),
        ("username-group", None, "www-data"),
    ] {
        let image = format!("{STAGING}/test-image-user-{image}");
        client.pull(&image).await?;
        let seen = client.image(&image).await?.with_context(|| image.clone())?;
        let seen_uid = seen.uid.map(|uid| uid.value);
        ensure!(
            (seen_uid, seen.username.as_str()) == (uid, name),
            "{image}: uid {seen_uid:?}, name {:?}",
            seen.username
        );
        client.remove(&image).await?;
    }
    Ok(())
}

/// By its id and without a command, as the kubelet makes containers.
async fn in_use(client: &mut Client) -> Result<()> {
    let id = client.pull(TWINS[1]).await?;
    let sandbox = client.run_sandbox().await?;
    let container = client.start_container(&sandbox, &id).await?;
    let status = client.container(&container).await?;
    ensure!(status.image_id == id, "image_id {:?} is not {id:?}", status.image_id);
    client.remove(&id).await?;
    let status = client.container(&container).await?;
    ensure!(status.state() == cri::ContainerState::ContainerRunning, "it is {:?} without its image", status.state());
    client.remove_sandbox(&sandbox).await
}

/// The page of a folder, which the suite asks for as well.
async fn page(client: &mut Client, image: &str) -> Result<()> {
    let id = client.pull(image).await?;
    let sandbox = client.run_sandbox().await?;
    client.start_container(&sandbox, &id).await?;
    let address = format!("{}:80", client.address(&sandbox).await?);
    let answer = wait::until("the web server answers", Duration::from_secs(20), || {
        http::request(&address, "GET", "/", &[], b"").map(Some)
    })?;
    ensure!(answer.status == 200, "the page of {image}: status {}", answer.status);
    client.remove_sandbox(&sandbox).await?;
    client.remove(image).await
}

async fn run_once(client: &mut Client, image: &str) -> Result<()> {
    let id = client.pull(image).await?;
    let sandbox = client.run_sandbox().await?;
    client.start_container(&sandbox, &id).await?;
    client.remove_sandbox(&sandbox).await
}

/// A sandbox and what it was made from.
struct Sandbox {
    id: String,
    config: cri::PodSandboxConfig,
}

impl Client {
    async fn pull(&mut self, image: &str) -> Result<String> {
        let request = cri::PullImageRequest { image: spec(image), ..Default::default() };
        Ok(self.images.pull_image(request).await.with_context(|| format!("PullImage {image}"))?.into_inner().image_ref)
    }

    async fn image(&mut self, image: &str) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: spec(image), verbose: false };
        Ok(self.images.image_status(request).await.with_context(|| format!("ImageStatus {image}"))?.into_inner().image)
    }

    async fn list(&mut self) -> Result<Vec<cri::Image>> {
        let request = cri::ListImagesRequest { filter: None };
        Ok(self.images.list_images(request).await.context("ListImages")?.into_inner().images)
    }

    async fn remove(&mut self, image: &str) -> Result<()> {
        let request = cri::RemoveImageRequest { image: spec(image) };
        self.images.remove_image(request).await.with_context(|| format!("RemoveImage {image}"))?;
        Ok(())
    }

    async fn run_sandbox(&mut self) -> Result<Sandbox> {
        let metadata =
            cri::PodSandboxMetadata { name: "pod".into(), uid: "uid".into(), namespace: "e2e".into(), attempt: 0 };
        let config = cri::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let id = self.runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        Ok(Sandbox { id, config })
    }

    /// Creates and starts one that runs what its image says.
    async fn start_container(&mut self, sandbox: &Sandbox, image: &str) -> Result<String> {
        let metadata = cri::ContainerMetadata { name: "main".into(), attempt: 0 };
        let config = cri::ContainerConfig { metadata: Some(metadata), image: spec(image), ..Default::default() };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox.config.clone()),
        };
        let container_id =
            self.runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        self.runtime.start_container(request).await.context("StartContainer")?;
        Ok(container_id)
    }

    async fn container(&mut self, container_id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: container_id.into(), verbose: false };
        let answer = self.runtime.container_status(request).await.context("ContainerStatus")?.into_inner();
        answer.status.context("ContainerStatus says nothing")
    }

    async fn address(&mut self, sandbox: &Sandbox) -> Result<String> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
        let answer = self.runtime.pod_sandbox_status(request).await.context("PodSandboxStatus")?.into_inner();
        let network = answer.status.and_then(|status| status.network);
        Ok(network.context("PodSandboxStatus names no network")?.ip)
    }

    async fn remove_sandbox(&mut self, sandbox: &Sandbox) -> Result<()> {
        let pod_sandbox_id = sandbox.id.clone();
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
        self.runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id };
        self.runtime.remove_pod_sandbox(request).await.context("RemovePodSandbox")?;
        Ok(())
    }
}

fn spec(image: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec { image: image.into(), ..Default::default() })
}
