use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:9700f9a2f5bf2c45f2f605a0bd3bce7cf37420ec9d3ed50ac2758413308766bf";

#[test]
fn names_get_their_full_form() {
    for (text, expected) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b/c:t", "localhost:5000/a/b/c:t"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
    ] {
        assert_eq!(normalize(text).map(|reference| reference.whole()), Ok(expected.to_owned()), "{text}");
    }
    for text in [format!("nginx@{DIGEST}"), format!("nginx:1.27@{DIGEST}")] {
        let reference = normalize(&text).expect("a reference");
        assert_eq!((reference.tag(), reference.digest()), (None, Some(DIGEST)), "{text}");
        assert_eq!(reference.whole(), format!("docker.io/library/nginx@{DIGEST}"));
    }
}

#[test]
fn what_is_no_name_is_refused() {
    let long = format!("a/{}", "b".repeat(300));
    let endless = "a".repeat(3000);
    let bare = &DIGEST[7..];
    let upper = format!("nginx@sha256:{}", bare.to_uppercase());
    for text in [
        "",
        " ",
        "nginx:",
        "Nginx",
        "-nginx",
        "nginx@",
        "a//b",
        "/a",
        "a/",
        "nginx@sha256:00",
        "a b",
        "a\nb",
        "../../etc",
        "nginx:tag with space",
        "http://x/y",
        &long,
        &endless,
        bare,
        &upper,
    ] {
        assert!(normalize(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_id_is_told_from_a_name() {
    let bare = &DIGEST[7..];
    assert_eq!(image_name(bare), Ok(ImageName::Id(DIGEST.to_owned())));
    assert_eq!(image_name(DIGEST), Ok(ImageName::Id(DIGEST.to_owned())));
    assert!(matches!(image_name("busybox"), Ok(ImageName::Reference(_))));
    assert!(matches!(image_name(&bare[1..]), Ok(ImageName::Reference(_))));
}

proptest! {
    #[test]
    fn no_text_panics_and_the_full_form_is_stable(text in "\\PC{0,80}") {
        if let Ok(reference) = normalize(&text) {
            let whole = reference.whole();
            prop_assert_eq!(normalize(&whole).map(|again| again.whole()), Ok(whole));
        }
    }

    #[test]
    fn plausible_names_are_stable(text in "([a-z0-9]{1,8}(\\.[a-z]{2,3})?(:[0-9]{2,4})?/)?[a-z0-9]{1,10}(/[a-z0-9._-]{1,10})?(:[a-zA-Z0-9._-]{1,10})?") {
        if let Ok(reference) = normalize(&text) {
            prop_assert!(!reference.registry().is_empty());
            prop_assert!(reference.tag().is_some());
            let whole = reference.whole();
            prop_assert_eq!(normalize(&whole).map(|again| again.whole()), Ok(whole));
        }
    }
}
