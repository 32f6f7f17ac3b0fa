use super::*;

#[test]
fn names_and_numbers_parse() {
    for (text, expected) in [
        ("SIGTERM", Some(15)),
        ("term", Some(15)),
        ("9", Some(9)),
        ("SIGRTMIN", Some(34)),
        ("SIGRTMIN+3", Some(37)),
        ("RTMAX-1", Some(63)),
        ("SIGRTMINPLUS15", Some(49)),
        ("SIGRTMAXMINUS14", Some(50)),
        ("SIGRTMIN+31", None),
        ("SIGRTMIN+-1", None),
        ("0", None),
        ("65", None),
        ("-9", None),
        ("SIGFOO", None),
        ("", None),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
}

#[test]
fn every_signal_of_the_cri_has_a_number() {
    for value in 1..=65 {
        let signal = cri::Signal::try_from(value).expect("a signal");
        let number = parse(signal.as_str_name().trim_start_matches("SIGNAL_"));
        assert!(number.is_some(), "{}", signal.as_str_name());
    }
}

#[test]
fn the_configuration_comes_before_the_image() {
    let image = |signal: &str| ImageView { stop_signal: signal.into(), ..ImageView::default() };
    let config = |signal: cri::Signal| cri::ContainerConfig { stop_signal: signal.into(), ..Default::default() };
    assert_eq!(stop(&config(cri::Signal::RuntimeDefault), &image("")), SIGTERM);
    assert_eq!(stop(&config(cri::Signal::RuntimeDefault), &image("SIGQUIT")), 3);
    assert_eq!(stop(&config(cri::Signal::RuntimeDefault), &image("SIGNONSENSE")), SIGTERM);
    assert_eq!(stop(&config(cri::Signal::Sigusr1), &image("SIGQUIT")), 10);
}
