//! The images that kubeadm's addons and a kind-like network run: the programs are built from Go modules.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;

use super::image::{self, Image, Layer};
use crate::{controlplane, paths};

/// kube-proxy as kubeadm names it, in the repository that stands for registry.k8s.io.
pub fn kube_proxy_name() -> String {
    format!("kube-proxy:{}", controlplane::build::KUBERNETES)
}

/// CoreDNS as kubeadm names it.
pub const COREDNS: &str = "coredns/coredns:v1.14.6";

/// The network's image.
pub const KINDNET: &str = "berth/kindnet:1";

/// What kindnetd does for its node, every ten seconds: the CNI configuration from the node's pod CIDR, in kindnetd's own
/// words, and a route to each other node's pods by that node's address.
const KINDNET_SCRIPT: &str = r#"#!/bin/sh
account=/var/run/secrets/kubernetes.io/serviceaccount
known=
while :; do
  # One line for each node: name, pod CIDR, address.
  nodes=$(printf 'GET /api/v1/nodes HTTP/1.0\r\nAuthorization: Bearer %s\r\nAccept: application/yaml\r\n\r\n' "$(cat $account/token)" |
    openssl s_client -quiet -verify_return_error -CAfile $account/ca.crt -connect "$CONTROL_PLANE_ENDPOINT" 2>/dev/null |
    awk '
      /^- /{ name = cidr = address = "" }
      /^    name: /{ name = $2 }
      /^    podCIDR: /{ cidr = $2 }
      /^    - address: /{ address = $3 }
      /^      type: InternalIP/{ print name, cidr, address }')
  if [ "$nodes" != "$known" ]; then
    echo "$nodes" | while read -r name cidr address; do
      if [ "$name" = "$NODE_NAME" ]; then
        cat >/etc/cni/net.d/.10-kindnet.conflist <<END
{
	"cniVersion": "0.3.1",
	"name": "kindnet",
	"plugins": [
	{
		"type": "ptp",
		"ipMasq": false,
		"ipam": {
			"type": "host-local",
			"dataDir": "/run/cni-ipam-state",
			"routes": [
				{ "dst": "0.0.0.0/0" }
			],
			"ranges": [
				[ { "subnet": "$cidr" } ]
			]
		}
		,
		"mtu": 1500
	},
	{
		"type": "portmap",
		"capabilities": {
			"portMappings": true
		}
	}
	]
}
END
        mv /etc/cni/net.d/.10-kindnet.conflist /etc/cni/net.d/10-kindnet.conflist
        echo "wrote the configuration for $cidr"
      elif [ -n "$address" ]; then
        ip route replace "$cidr" via "$address" && echo "pods of $name are reached by $address"
      fi
    done
    known=$nodes
  fi
  sleep 10 & wait $!
done
"#;

/// kube-proxy with the nft that it runs and the libraries of that.
///
/// # Errors
/// A program is missing.
pub fn kube_proxy() -> Result<Image> {
    let tools = local("/usr/sbin/nft")?;
    let program = fs::read(paths::control_plane_bin().join("kube-proxy"))?;
    let top = Layer::default()
        .folder("usr/local", 0o755)?
        .folder("usr/local/bin", 0o755)?
        .file("usr/local/bin/kube-proxy", 0o755, &program)?
        .done()?;
    Ok(Image { layers: vec![tools, top], config: image::config(&["/usr/local/bin/kube-proxy"]) })
}

/// CoreDNS, run without rights as the official image does.
///
/// # Errors
/// The program is missing.
pub fn coredns() -> Result<Image> {
    let program = fs::read(paths::control_plane_bin().join("coredns"))?;
    let layer =
        Layer::default().folder("etc", 0o755)?.folder("tmp", 0o1777)?.file("coredns", 0o755, &program)?.done()?;
    Ok(Image { layers: vec![layer], config: json!({"Entrypoint": ["/coredns"], "WorkingDir": "/"}) })
}

/// A network for pods that does what kindnetd does.
///
/// # Errors
/// busybox is not installed.
pub fn kindnet() -> Result<Image> {
    let mut image = image::busybox()?;
    // busybox has no TLS that the API server accepts.
    image.layers.push(local("/usr/bin/openssl")?);
    image.layers.push(Layer::default().file("kindnet", 0o755, KINDNET_SCRIPT.as_bytes())?.done()?);
    image.config["Cmd"] = json!(["/kindnet"]);
    Ok(image)
}

/// A layer of a program of this machine, where it is here, with its libraries.
fn local(program: &str) -> Result<Vec<u8>> {
    image::with_libraries(Path::new(program), program)?.done()
}
