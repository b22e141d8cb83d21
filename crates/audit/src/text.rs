//! The report as plain lines. Whoever prints them chooses the colours; nothing in them acts on a terminal.

use crate::report::{ContainerReport, Finding, MountReport, Report, Severity};
use crate::tally::LayerFile;
use crate::words::{amount, bytes, count, plain};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What the line should be coloured for: that of the finding which begins here.
    pub severity: Option<Severity>,
    /// How many steps it is indented.
    pub indent: usize,
    /// Without control characters. Empty for a blank line.
    pub text: String,
}

/// The whole report, compact.
pub fn text(report: &Report) -> Vec<Line> {
    let mut lines = Lines::default();
    lines.add(None, 0, &report.summary.headline);
    for sentence in &report.summary.sentences {
        lines.add(None, 0, sentence);
    }
    let (loud, quiet): (Vec<_>, Vec<_>) =
        report.containers.iter().partition(|container| report.of_container(&container.name).any(has_weight));
    for container in loud {
        lines.blank();
        lines.container(container);
        for finding in report.of_container(&container.name) {
            lines.finding(finding, 1, &finding.found);
        }
    }
    let of_host: Vec<_> = report.of_host().collect();
    if !of_host.is_empty() {
        lines.blank();
        lines.add(None, 0, "Volumes and host");
        of_host.into_iter().for_each(|finding| lines.finding(finding, 1, &finding.found));
    }
    lines.quiet(report, &quiet);
    if !quiet.is_empty() || leaves_out(report) {
        lines.blank();
        lines.add(None, 0, "What is left out here is in --json, and in --html FILE.");
    }
    lines.0
}

/// Whether there is more to say of findings, or of files in layers.
fn leaves_out(report: &Report) -> bool {
    let layers = report.containers.iter().filter_map(|container| container.layer.as_ref());
    report.findings.iter().any(|finding| finding.severity < Severity::Risk)
        || layers.into_iter().any(|layer| layer.matter.files > 1)
}

/// Notes on what could be done better do not make a container worth a section.
fn has_weight(finding: &Finding) -> bool {
    finding.severity > Severity::Note || finding.code == "not-looked-at"
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn add(&mut self, severity: Option<Severity>, indent: usize, text: &str) {
        self.0.push(Line { severity, indent, text: plain(text) });
    }

    fn blank(&mut self) {
        self.add(None, 0, "");
    }

    fn container(&mut self, container: &ContainerReport) {
        let services = match container.services.as_slice() {
            [] => String::new(),
            services => format!(", {}", services.join(", ")),
        };
        self.add(
            None,
            0,
            &format!("{} ({}, {}{services})", container.name, container.image, container.state),
        );
        for mount in &container.mounts {
            self.add(None, 1, &mount_line(mount));
        }
        self.add(None, 1, &layer_line(container));
        if let Some(line) = files_line(container) {
            self.add(None, 2, &line);
        }
    }

    fn finding(&mut self, finding: &Finding, indent: usize, found: &str) {
        self.add(
            Some(finding.severity),
            indent,
            &format!("{}: {found}", finding.severity.word().to_uppercase()),
        );
        if finding.severity >= Severity::Risk {
            self.add(None, indent + 1, &finding.why);
        }
        if let Some(command) = &finding.command {
            self.add(None, indent + 1, &format!("$ {command}"));
        }
    }

    fn quiet(&mut self, report: &Report, quiet: &[&ContainerReport]) {
        if quiet.is_empty() {
            return;
        }
        self.blank();
        for container in quiet {
            for finding in report.of_container(&container.name) {
                self.finding(finding, 0, &format!("{}: {}", container.name, finding.found));
            }
        }
        let names: Vec<&str> = quiet.iter().map(|container| container.name.as_str()).collect();
        let number = count(names.len() as u64, "container");
        self.add(None, 0, &format!("Nothing to lose in {number}: {}.", names.join(", ")));
    }
}

fn mount_line(mount: &MountReport) -> String {
    let what = match (&mount.volume, mount.anonymous) {
        (_, true) => "volume without a name".to_owned(),
        (Some(volume), false) => format!("volume {volume}"),
        (None, false) if mount.kind == "bind" => format!("host directory {}", mount.source),
        (None, false) => mount.kind.clone(),
    };
    let driver = mount.driver.as_ref().map(|driver| format!(", driver {driver}")).unwrap_or_default();
    let size = match (mount.empty, mount.used_bytes) {
        (Some(true), _) => ", empty".to_owned(),
        (_, Some(used)) => format!(", {}", bytes(used)),
        _ => String::new(),
    };
    let only = if mount.read_write { "" } else { ", read-only" };
    let holds = mount.holds.as_ref().map(|service| format!(", data of {service}")).unwrap_or_default();
    format!("{} on {what}{driver}{size}{only}{holds}", mount.destination)
}

/// What the layer holds, in one line.
fn layer_line(container: &ContainerReport) -> String {
    let Some(layer) = &container.layer else { return "layer: not looked at".to_owned() };
    let noise = layer.noise_total();
    let names: Vec<&str> = layer.noise.iter().map(|noise| noise.name.as_str()).collect();
    let noise = match noise.files {
        0 => String::new(),
        _ => format!("; besides, {} of {}", amount(noise), names.join(", ")),
    };
    match layer.matter.files {
        0 => format!("layer: nothing that matters{noise}"),
        _ => format!("layer: {}{noise}", amount(layer.matter)),
    }
}

/// The largest file in the layer, and the newest.
fn files_line(container: &ContainerReport) -> Option<String> {
    let layer = container.layer.as_ref()?;
    let (largest, newest) = (layer.largest.first()?, layer.newest.first()?);
    let size = |file: &LayerFile| format!("{} ({})", file.path, bytes(file.bytes));
    let time = |file: &LayerFile| file.modified.strftime("%Y-%m-%d %H:%M UTC").to_string();
    Some(match largest.path == newest.path {
        true => format!("largest and newest {}, of {}", size(largest), time(newest)),
        false => format!("largest {}, newest {} of {}", size(largest), size(newest), time(newest)),
    })
}
