//! The service on a unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use berth_cri_proto::v1::image_service_server::ImageServiceServer;
use berth_cri_proto::v1::runtime_service_server::RuntimeServiceServer;
use futures_util::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::Service;

/// The kubelet's own limit on a message, in bytes.
const MESSAGE_LIMIT: usize = 16 << 20;
/// How long answers under way may still take when the service is asked to end.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Before accepting again after an error, such as that there are no descriptors.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Serves on the socket at `path` until `stop` is cancelled; calls in flight are answered first. The folder is made, a
/// socket that nobody listens on any more is replaced, and the socket is removed at the end. Mode 0660: a client is root
/// or in the group of the folder's owner. `listening` is called once clients can connect.
///
/// # Errors
/// When the socket can't be made (`AddrInUse` when somebody listens there), the streaming server can't listen, or the
/// server fails.
pub async fn serve(
    path: &Path,
    service: Arc<Service>,
    stop: CancellationToken,
    listening: impl FnOnce(),
) -> io::Result<()> {
    let listener = listen(path)?;
    // Now rather than with the first call, so that an address that is taken is told at once.
    crate::sessions::server(&service.runtime).await.map_err(|status| io::Error::other(status.message()))?;
    listening();
    tracing::info!(socket = %path.display(), "serving the CRI");
    let runtime = Arc::clone(&service.runtime);
    let server = tonic::transport::Server::builder()
        .add_service(
            RuntimeServiceServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            ImageServiceServer::from_arc(service)
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT),
        )
        .serve_with_incoming_shutdown(incoming(listener), stop.cancelled());
    // A client that keeps its connection (every kubelet does, for events) must not keep this process. What its calls
    // have begun are tasks of their own, which `Service::close` awaits.
    let drained = async {
        stop.cancelled().await;
        // Calls that are dropped below must know that it is not their callers who have gone.
        runtime.sessions.end();
        tokio::time::sleep(DRAIN).await;
    };
    let served = tokio::select! {
        served = server => served,
        () = drained => Ok(()),
    };
    let _ = fs::remove_file(path);
    served.map_err(io::Error::other)
}

/// The connections. An error is no item: whoever takes the items asks for the next at once, and would do so for ever while
/// there are no descriptors.
fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    futures_util::stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "the CRI's socket can't accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves on this socket")),
        // A socket whose process is gone.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(listener)
}
