//! The images by what is in them, and the names that the suite gives them.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Named, programs};
use crate::registry;
use crate::registry::image::{self, Image, Layer};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
";
const GROUP: &str = "root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
operator:x:37:
users:x:100:
nogroup:x:65534:
";

/// Where nginx keeps what it works with, besides its configuration.
const NGINX_FOLDERS: &[&str] = &["etc/nginx", "var/log", "var/log/nginx", "var/lib", "var/lib/nginx", "var/www"];

/// Says on its log what it is, as Apache does; the shell is there because a first process ignores SIGTERM by default.
const HTTPD: &str = "#!/bin/sh
echo 'httpd -f: resuming normal operations'
trap 'exit 0' TERM
httpd -f -p 80 -h /var/www &
wait
";

/// Every image of the suite but one whose digest the suite knows.
pub(super) fn all() -> Result<Vec<Named>> {
    let named = |names: &[&str], image: Image| Named { names: names.iter().map(|&name| name.into()).collect(), image };
    let mut all = vec![
        named(&["e2e-test-images/busybox:1.29-2"], busybox()?),
        named(&["e2e-test-images/nginx:1.14-2"], nginx(80)?),
        named(&["e2e-test-images/httpd:2.4.39-4"], httpd()?),
        named(&["e2e-test-images/nonewprivs:1.3"], nonewprivs()?),
        named(&["pause:3.9"], pause()?),
    ];
    let staging = |name: &str| format!("k8s-staging-cri-tools/{name}");
    let own = |name: &str, image: Image| Named { names: vec![staging(name)], image };
    let architecture = registry::architecture();
    all.push(own(&format!("hostnet-nginx-{architecture}:latest"), hostnet_nginx()?));
    for name in ["latest:latest", "tag:test", "tag:all", "1:latest", "2:latest", "3:latest"] {
        let name = format!("test-image-{name}");
        all.push(own(&name, marked(&name)?));
    }
    let tags = ["1", "2", "3"].map(|tag| staging(&format!("test-image-tags:{tag}")));
    all.push(Named { names: tags.into(), image: marked("test-image-tags")? });
    for (name, user) in
        [("uid", "1002"), ("username", "www-data"), ("uid-group", "1003:1004"), ("username-group", "www-data:1004")]
    {
        let mut image = busybox()?;
        image.config["User"] = json!(user);
        all.push(own(&format!("test-image-user-{name}:latest"), image));
    }
    all.push(own("test-image-predefined-group:latest", predefined_group()?));
    Ok(all)
}

/// A shell with its tools, each a file of its own.
///
/// # Errors
/// busybox is not built.
pub fn busybox() -> Result<Image> {
    Ok(Image { layers: vec![shell(PASSWD, GROUP)?], config: image::config(&["sh"]) })
}

/// nginx beside busybox's tools, on a port of all addresses.
///
/// # Errors
/// A program or one of its libraries is missing.
pub fn nginx(port: u16) -> Result<Image> {
    let configuration = format!(
        "user www-data;\nworker_processes 1;\npid /var/run/nginx.pid;\nerror_log /dev/stderr;\n\
         events {{ worker_connections 64; }}\nhttp {{\n  default_type text/html;\n  access_log /dev/stdout;\n  \
         server {{ listen {port}; root /var/www; }}\n}}\n"
    );
    // What is the same for all ports is a layer of its own.
    let program = image::with_libraries(&programs::nginx()?, "/usr/sbin/nginx")?.done()?;
    let mut layer = Layer::default();
    for folder in NGINX_FOLDERS {
        layer = layer.folder(folder, 0o755)?;
    }
    let layer = layer.file("etc/nginx/nginx.conf", 0o644, configuration.as_bytes())?.file(
        "var/www/index.html",
        0o644,
        b"<html><body><h1>Welcome to nginx!</h1></body></html>\n",
    )?;
    let mut image = busybox()?;
    image.layers.extend([program, layer.done()?]);
    image.config["Cmd"] = json!(["nginx", "-g", "daemon off;"]);
    image.config["ExposedPorts"] = json!({ format!("{port}/tcp"): {} });
    image.config["StopSignal"] = json!("SIGQUIT");
    Ok(image)
}

/// The same on the port that the suite forwards to in the host's network.
///
/// # Errors
/// As [`nginx`].
pub fn hostnet_nginx() -> Result<Image> {
    nginx(12003)
}

/// A web server on port 80 whose log says `httpd`.
///
/// # Errors
/// busybox is not built.
pub fn httpd() -> Result<Image> {
    let mut image = busybox()?;
    let layer = Layer::default()
        .folder("var/www", 0o755)?
        .file("var/www/index.html", 0o644, b"<html><body><h1>It works!</h1></body></html>\n")?
        .file("httpd-foreground", 0o755, HTTPD.as_bytes())?;
    image.layers.push(layer.done()?);
    image.config["Cmd"] = json!(["/httpd-foreground"]);
    image.config["ExposedPorts"] = json!({"80/tcp": {}});
    Ok(image)
}

/// Prints its effective user, which its set-uid bit makes root's.
///
/// # Errors
/// A program is not built.
pub fn nonewprivs() -> Result<Image> {
    let program = fs::read(programs::nonewprivs()?)?;
    let mut image = busybox()?;
    image.layers.push(Layer::default().file("nnp", 0o4755, &program)?.done()?);
    image.config["Entrypoint"] = json!(["/nnp"]);
    image.config["Cmd"] = Value::Null;
    Ok(image)
}

/// The smallest program that waits: what holds a sandbox's namespaces elsewhere.
///
/// # Errors
/// It is not built.
pub fn pause() -> Result<Image> {
    let layer = Layer::default().file("pause", 0o755, &fs::read(programs::pause()?)?)?.done()?;
    Ok(Image { layers: vec![layer], config: json!({"Entrypoint": ["/pause"], "User": "65535:65535"}) })
}

/// Runs as user 1000, who is a member of group 50000 in the image.
///
/// # Errors
/// busybox is not built.
pub fn predefined_group() -> Result<Image> {
    let passwd = format!("{PASSWD}default-user:x:1000:1000::/home/default-user:/bin/sh\n");
    let group = format!("{GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n");
    let mut config = image::config(&["sh"]);
    config["User"] = json!("1000");
    Ok(Image { layers: vec![shell(&passwd, &group)?], config })
}

/// busybox and a file that makes it an image of its own.
fn marked(name: &str) -> Result<Image> {
    let mut image = busybox()?;
    image.layers.push(Layer::default().file("name", 0o644, name.as_bytes())?.done()?);
    Ok(image)
}

fn shell(passwd: &str, group: &str) -> Result<Vec<u8>> {
    image::shell(Path::new(&programs::busybox()?), passwd, group)
}
