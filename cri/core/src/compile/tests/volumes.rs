//! Rules of images as volumes, and of single mounts with ids of their own.

use super::*;

const RDONLY: u64 = 1;
const NOEXEC: u64 = 8;

/// A container with one image mounted.
fn volume(change: impl FnOnce(&mut cri::Mount)) -> Case {
    case(|case| {
        let image = VolumeImage { id: "sha256:1".into(), layers: vec!["/l/2".into(), "/l/1".into()] };
        case.paths.host.images.insert("data:1".into(), image);
        let mut mount = cri::Mount {
            container_path: "/data".into(),
            readonly: true,
            image: Some(cri::ImageSpec { image: "data:1".into(), ..Default::default() }),
            ..Default::default()
        };
        change(&mut mount);
        case.config.mounts.push(mount);
    })
}

fn mounted(case: &Case) -> plan::Mount {
    case.plan().mounts.into_iter().find(|mount| mount.destination == "/data").expect("mounted")
}

fn image(sub_path: &str) -> plan::MountSource {
    plan::MountSource::Image { layers: vec!["/l/2".into(), "/l/1".into()], sub_path: sub_path.into() }
}

#[test]
fn an_image_is_a_read_only_volume() {
    let case = volume(|_| {});
    assert_eq!(images(&case.config).collect::<Vec<_>>(), [("data:1", "")]);
    assert_eq!(host_paths(&case.config).count(), 0);
    let mount = mounted(&case);
    assert_eq!(mount.source, image(""));
    assert_eq!(mount.attr_set & (RDONLY | NOEXEC), RDONLY, "programs of it can be executed");
    let case = volume(|mount| {
        mount.image_sub_path = "share/a=b".into();
        mount.mount_options = vec!["noexec".into()];
    });
    let mount = mounted(&case);
    assert_eq!(mount.source, image("share/a=b"));
    assert_eq!(mount.attr_set & (RDONLY | NOEXEC), RDONLY | NOEXEC);
}

#[test]
fn what_no_image_can_be_is_refused() {
    let field = |change: fn(&mut cri::Mount)| volume(change).refused();
    assert_eq!(field(|mount| mount.readonly = false), "mounts[0].readonly");
    assert_eq!(field(|mount| mount.host_path = "/h".into()), "mounts[0].host_path");
    assert_eq!(field(|mount| mount.container_path = "data".into()), "mounts[0].container_path");
    assert_eq!(field(|mount| mount.mount_options = vec!["rw".into()]), "mounts[0].mount_options");
    assert_eq!(field(|mount| mount.uid_mappings = vec![cri::IdMapping::default()]), "mounts[0].uidMappings");
    assert_eq!(
        field(|mount| mount.propagation = cri::MountPropagation::PropagationHostToContainer.into()),
        "mounts[0].propagation"
    );
    for bad in ["/etc", "../etc", "a/../../b", "a\0"] {
        assert_eq!(volume(|mount| mount.image_sub_path = bad.into()).refused(), "mounts[0].image_sub_path", "{bad:?}");
    }
    let missing = |name: &str| volume(|mount| mount.image.as_mut().expect("set").image = name.into()).refused();
    assert_eq!(missing("other:1"), "mounts[0].image.image");
    assert_eq!(missing(""), "mounts[0].image.image");
    let without = case(|case| case.mount("/h", "/m").image_sub_path = "x".into());
    assert_eq!(without.refused(), "mounts[0].image_sub_path");
}

#[test]
fn a_mount_has_one_range_of_ids() {
    let map = |container_id, host_id, length| cri::IdMapping { container_id, host_id, length };
    let mount = |uids: &[cri::IdMapping], gids: &[cri::IdMapping]| {
        case(|case| {
            let mount = case.mount("/h", "/data");
            mount.uid_mappings = uids.to_vec();
            mount.gid_mappings = gids.to_vec();
        })
    };
    let one = [map(0, 1000, 10)];
    assert_eq!(mounted(&mount(&one, &one)).idmap, Some(plan::IdRange { host: 1000, length: 10 }));
    assert_eq!(mounted(&mount(&[], &[])).idmap, None);
    for (uids, gids) in [(&one[..], &[][..]), (&one, &[map(0, 1000, 11)]), (&[map(1, 1000, 10)], &[map(1, 1000, 10)])] {
        assert_eq!(mount(uids, gids).refused(), "mounts[0].uidMappings");
    }
}
