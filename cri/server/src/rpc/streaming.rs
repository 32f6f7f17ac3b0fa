//! What Exec and Attach check alike (`k8s.io/cri-streaming@v0.37.2`, `validateExecRequest`).

use tonic::Status;

pub(super) fn check(container: &str, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> Result<(), Status> {
    if container.is_empty() {
        return Err(Status::invalid_argument("container_id: it is missing"));
    }
    if tty && stderr {
        return Err(Status::invalid_argument("stderr: a terminal has one output only; leave tty or stderr out"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Status::invalid_argument("stdin, stdout, stderr: one of them must be set"));
    }
    Ok(())
}

pub(super) fn exhausted(full: &berth_stream::Full) -> Status {
    Status::resource_exhausted(full.to_string())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::check;

    #[test]
    fn a_terminal_has_one_output_and_something_must_be_streamed() {
        assert!(check("c", false, false, true, true).is_ok());
        assert!(check("c", true, true, true, false).is_ok());
        for (container, tty, stdin, stdout, stderr) in
            [("", false, true, true, true), ("c", true, true, true, true), ("c", false, false, false, false)]
        {
            let status = check(container, tty, stdin, stdout, stderr).expect_err("refused");
            assert_eq!(status.code(), Code::InvalidArgument);
        }
    }
}
