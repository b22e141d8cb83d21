//! Tests of the configuration.

use super::*;
use engine::HoldLine;

fn read(text: &str) -> Result<Config, String> {
    Config::from_toml(text, &Overrides::default(), None)
}

#[test]
fn the_packaged_file_is_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/config.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&text).unwrap(), read("").unwrap());
    // Every key is there, so that nobody has to look elsewhere for what can be set.
    let table: toml::Table = text.parse().unwrap();
    let keys: Vec<_> = table.values().flat_map(|section| section.as_table().unwrap().keys()).collect();
    for key in [
        "state",
        "run",
        "level",
        "format",
        "group",
        "deadline",
        "enabled",
        "socket",
        "plugin-socket",
        "call-deadline",
        "driver",
        "size",
        "tmpfs-size",
        "fs",
        "provisioning",
        "pool",
        "protect",
        "interval",
        "vault",
        "keep",
        "ttl",
        "allowed-paths",
    ] {
        assert!(keys.iter().any(|known| *known == key), "{key} is not in packaging/config.toml");
    }
}

#[test]
fn defaults_hold() {
    let config = read("").unwrap();
    assert_eq!(config.api_socket, Path::new("/run/everhold/everhold.sock"));
    assert_eq!(config.pools.len(), 1);
    assert_eq!(config.pools[0].path, Path::new("/var/lib/everhold/pools/default"));
    assert_eq!(config.trash_ttl, Duration::from_secs(7 * 86_400));
    assert!(config.settings().claim_wait < config.call_deadline);
    assert!(config.defaults.protect);
    assert_eq!(config.defaults.protection.vault.as_str(), "local");
    assert_eq!(config.defaults.protection.interval.to_string(), "1s");
    assert!(config.off_limits().contains(&config.pools[0].path));
}

#[test]
fn the_file_and_then_the_flags_override() {
    let text = r#"
        [paths]
        state = "/s"
        run = "/r"
        [log]
        format = "json"
        [defaults]
        driver = "dir"
        size = "1GiB"
        [pool.default]
        hold = "1GiB"
        labels = { tier = "fast" }
        [pool.slow]
        path = "/slow"
        reserve = "10%"
        hold = "off"
        [docker]
        plugin_socket = "/p.sock"
    "#;
    let config = read(text).unwrap();
    assert_eq!(config.pools[0].path, Path::new("/s/pools/default"));
    assert_eq!(config.pools[0].hold, HoldLine::Below(Size::from_gib(1)));
    assert_eq!((config.pools[1].hold, config.pools[1].reserve.value()), (HoldLine::Off, 10));
    assert_eq!((config.log_format, config.defaults.driver), (LogFormat::Json, DriverKind::Dir));
    assert_eq!(config.plugin_socket, Path::new("/p.sock"));
    let flags =
        Overrides { state: Some("/x".into()), log_format: Some(LogFormat::Text), ..Overrides::default() };
    let config = Config::from_toml(text, &flags, Some(Path::new("/api.sock"))).unwrap();
    assert_eq!((config.state.as_path(), config.log_format), (Path::new("/x"), LogFormat::Text));
    assert_eq!(config.api_socket, Path::new("/api.sock"));
}

#[test]
fn mistakes_are_named() {
    for (text, wanted) in [
        ("[history]\nprotect = \"maybe\"", "use \"on\" or \"off\""),
        ("[history]\nprotect = 5", "use \"on\" or \"off\""),
        ("[history]\ninterval = \"50ms\"", "100ms to 1d"),
        ("[history]\nvault = \"../x\"", "starts with an ASCII letter"),
        ("[defaults]\nsise = \"1GiB\"", "did you mean `size`?"),
        ("[docker]\nplugin-sock = \"/x\"", "did you mean `plugin-socket`?"),
        ("[pol.default]", "did you mean `pool`?"),
        ("[defaults]\nsize = \"10XB\"", "unknown unit"),
        ("[defaults]\ndriver = \"zfs\"", "image, dir, tmpfs"),
        ("[trash]\nttl = \"7\"", "not a duration"),
        ("[log]\nformat = \"xml\"", "unknown variant"),
        ("[paths]\nstate = \"here\"", "not an absolute path"),
        ("[defaults]\npool = \"fast\"", "no [pool.fast]"),
        ("[pool.a]\npath=\"/x\"\n[pool.b]\npath=\"/x\"\n[defaults]\npool=\"a\"", "same path"),
        ("[pool.default]\nreserve = \"200%\"", "more than the whole pool"),
        ("[pool.\"../x\"]", "starts with an ASCII letter"),
        ("[pool.default]\nhold = \"maybe\"", "`auto` and `off`"),
        ("[tools]\ndeadline = \"0s\"", "is zero"),
        ("[paths", "line 1"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
}

#[test]
fn history_can_be_off_by_default() {
    for text in ["protect = false", "protect = \"off\""] {
        assert!(!read(&format!("[history]\n{text}")).unwrap().defaults.protect);
    }
    let config =
        read("[history]\nprotect = true\ninterval = \"5s\"\nvault = \"far\"\nkeep = \"1m:1h\"").unwrap();
    assert!(config.defaults.protect);
    assert_eq!(config.defaults.protection.vault.as_str(), "far");
    assert_eq!(config.defaults.protection.keep.to_string(), "1m:60m");
}

#[test]
fn a_named_file_must_be_there() {
    let overrides = Overrides { config: Some("/nowhere/config.toml".into()), ..Overrides::default() };
    let problem = Config::load(&overrides, None).unwrap_err();
    assert!(problem.detail.contains("/nowhere/config.toml"), "{problem}");
    assert_eq!(problem.kind(), ErrorKind::InvalidInput);
}
