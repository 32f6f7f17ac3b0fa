//! Signal names and numbers, and which one stops a container.

#[cfg(feature = "cri")]
use berth_cri_proto::v1 as cri;

#[cfg(feature = "cri")]
use crate::view::ImageView;

/// The default stop signal.
pub const SIGTERM: i32 = 15;
/// The last resort.
pub const SIGKILL: i32 = 9;

/// The first and last real-time signal as glibc shows them to programs: it keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

const NAMES: [(&str, i32); 36] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

/// The number of `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAX-1`, or the CRI's `SIGRTMINPLUS3`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, sign, offset) = ["RTMINPLUS", "RTMIN+"]
        .iter()
        .find_map(|prefix| Some((RTMIN, 1, name.strip_prefix(prefix)?)))
        .or_else(|| ["RTMAXMINUS", "RTMAX-"].iter().find_map(|prefix| Some((RTMAX, -1, name.strip_prefix(prefix)?))))?;
    let offset: i32 = offset.parse().ok().filter(|offset| (0..=RTMAX).contains(offset))?;
    Some(base + sign * offset).filter(|number| (RTMIN..=RTMAX).contains(number))
}

/// The signal that stops a container: the configuration's, the image's, or SIGTERM. An image whose `STOPSIGNAL` makes no
/// sense still stops.
#[cfg(feature = "cri")]
pub fn stop(config: &cri::ContainerConfig, image: &ImageView) -> i32 {
    let asked = match config.stop_signal() {
        cri::Signal::RuntimeDefault => None,
        signal => parse(signal.as_str_name().trim_start_matches("SIGNAL_")),
    };
    asked.or_else(|| parse(&image.stop_signal)).unwrap_or(SIGTERM)
}

#[cfg(all(test, feature = "cri"))]
mod tests;
