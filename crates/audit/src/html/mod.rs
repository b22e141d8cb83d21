//! The report as one page that needs nothing else: no script, no style sheet, no picture from elsewhere. For a browser, a
//! phone, a printer.
//!
//! Names come from containers and may be hostile: every text goes through [`Page::text`], and only literals of this room go
//! in as they are.

mod container;

use crate::report::{Finding, Report, Severity, VolumeReport};
use crate::words::{bytes, capital, count, plain};

const STYLE: &str = include_str!("style.css");

/// The report as a page.
pub fn html(report: &Report) -> String {
    let mut page = Page::default();
    page.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"Everhold\">\n");
    // Nothing may be loaded, whatever a name tries.
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    page.raw("<title>Everhold audit: ").text(&report.summary.headline).raw("</title>\n<style>\n");
    page.raw(STYLE).raw("</style>\n</head>\n<body>\n");
    page.header(report);
    page.raw("<main>\n");
    page.findings(report);
    page.containers(report);
    page.volumes(&report.volumes);
    page.raw("</main>\n<footer><p>Made by <strong>everhold audit</strong>. It looked and changed nothing. ");
    page.raw("Sizes are of files as a copy would have them.</p></footer>\n</body>\n</html>\n");
    page.0
}

/// The page in the making.
#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    /// Markup.
    pub(super) fn raw(&mut self, markup: &str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, as text.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in plain(text).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// `<tag>text</tag>`. A class may follow the tag's name: `p.why`.
    pub(super) fn element(&mut self, tag: &'static str, text: &str) -> &mut Self {
        let (tag, class) = tag.split_once('.').map_or((tag, ""), |(tag, class)| (tag, class));
        self.raw("<").raw(tag);
        if !class.is_empty() {
            self.raw(" class=\"").raw(class).raw("\"");
        }
        self.raw(">").text(text).raw("</").raw(tag).raw(">")
    }

    /// The head of a table.
    pub(super) fn table(&mut self, caption: &str, columns: &[&'static str]) -> &mut Self {
        self.raw("<div class=\"scroll\"><table>\n").element("caption", caption).raw("\n<thead><tr>");
        for column in columns {
            let number = if *column == "Size" || *column == "Files" { " class=\"number\"" } else { "" };
            self.raw("<th scope=\"col\"").raw(number).raw(">").text(column).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n")
    }

    pub(super) fn table_end(&mut self) -> &mut Self {
        self.raw("</tbody>\n</table></div>\n")
    }

    fn header(&mut self, report: &Report) {
        let summary = &report.summary;
        let state = if report.would_lose() { "loss" } else { "fine" };
        self.raw("<header class=\"").raw(state).raw("\">\n<p class=\"kicker\">Everhold audit</p>\n");
        self.element("h1", &summary.headline).raw("\n");
        for sentence in &summary.sentences {
            self.element("p", sentence).raw("\n");
        }
        self.raw("<ul class=\"counts\" aria-label=\"Findings by severity\">\n");
        for severity in Severity::ALL {
            let number = match severity {
                Severity::Loss => summary.losses,
                Severity::Risk => summary.risks,
                Severity::Advice => summary.advice,
                Severity::Note => summary.notes,
            };
            if number > 0 {
                self.raw("<li class=\"").raw(severity.word()).raw("\"><a href=\"#").raw(severity.word());
                self.raw("\"><b>").text(&number.to_string()).raw("</b> ").text(plural(severity, number));
                self.raw("</a></li>\n");
            }
        }
        let taken = report.taken.strftime("%Y-%m-%d %H:%M UTC").to_string();
        let engine = if report.engine.is_empty() { "unknown" } else { &report.engine };
        self.raw("</ul>\n<p class=\"meta\">Taken ").text(&taken).raw(" · Docker Engine ").text(engine);
        if !report.storage_driver.is_empty() {
            self.raw(" (").text(&report.storage_driver).raw(")");
        }
        let volumes = count(report.volumes.len() as u64, "volume");
        self.raw(" · ").text(&count(summary.containers, "container")).raw(" · ").text(&volumes);
        self.raw("</p>\n</header>\n");
    }

    fn findings(&mut self, report: &Report) {
        for severity in Severity::ALL {
            let mut found = report.findings.iter().filter(|finding| finding.severity == severity).peekable();
            if found.peek().is_none() {
                continue;
            }
            let word = severity.word();
            self.raw("<section class=\"findings ").raw(word).raw("\" id=\"").raw(word).raw("\">\n");
            self.element("h2", title(severity)).raw("\n");
            for finding in found {
                self.finding(finding);
            }
            self.raw("</section>\n");
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let word = finding.severity.word();
        self.raw("<article class=\"finding\">\n<h3 class=\"subject\"><span class=\"tag ")
            .raw(word)
            .raw("\">");
        self.text(&capital(word)).raw("</span>");
        if let Some(container) = &finding.container {
            self.raw(" <strong>").text(container).raw("</strong>");
        }
        if let Some(volume) = &finding.volume {
            self.raw(" <span class=\"volume\">volume ").element("code", volume).raw("</span>");
        }
        if let Some(path) = &finding.path {
            self.raw(" ").element("code", path);
        }
        if let Some(size) = finding.bytes {
            self.raw(" <span class=\"size\">").text(&bytes(size)).raw("</span>");
        }
        self.raw("</h3>\n").element("p.found", &sentence(&finding.found)).raw("\n");
        self.element("p.why", &sentence(&finding.why)).raw("\n");
        if let Some(command) = &finding.command {
            self.raw("<pre><code>").text(command).raw("</code></pre>\n");
        }
        self.raw("<p class=\"code\">").text(finding.code).raw("</p>\n</article>\n");
    }

    fn volumes(&mut self, volumes: &[VolumeReport]) {
        if volumes.is_empty() {
            return;
        }
        self.raw("<section id=\"volumes\">\n<h2>Volumes</h2>\n");
        let columns = ["Volume", "Driver", "Used by", "Size", "History"];
        self.table(&format!("{} of the engine", capital(&count(volumes.len() as u64, "volume"))), &columns);
        for volume in volumes {
            self.raw("<tr><th scope=\"row\">");
            if volume.anonymous {
                self.raw("<span class=\"quiet\">without a name</span> ");
            }
            self.element("code", &volume.name).raw("</th>").element("td", &volume.driver);
            let users = if volume.used_by.is_empty() { "none".to_owned() } else { volume.used_by.join(", ") };
            self.element("td", &users).element("td.number", &held(volume.empty, volume.used_bytes));
            let history = match volume.history {
                "protected" => "kept, up to date",
                "behind" => "kept, behind",
                "none" => "none",
                _ => "none known",
            };
            self.element("td", history).raw("</tr>\n");
        }
        self.table_end().raw("</section>\n");
    }
}

/// How much is in something.
pub(super) fn held(empty: Option<bool>, used: Option<u64>) -> String {
    match (empty, used) {
        (Some(true), _) => "empty".to_owned(),
        (_, Some(used)) => bytes(used),
        _ => "not known".to_owned(),
    }
}

/// As a sentence of its own.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{end}", capital(text))
}

fn plural(severity: Severity, number: u64) -> &'static str {
    match (severity, number) {
        (Severity::Loss, 1) => "loss",
        (Severity::Loss, _) => "losses",
        (Severity::Risk, 1) => "risk",
        (Severity::Risk, _) => "risks",
        (Severity::Advice, _) => "advice",
        (Severity::Note, 1) => "note",
        (Severity::Note, _) => "notes",
    }
}

fn title(severity: Severity) -> &'static str {
    match severity {
        Severity::Loss => "Would be lost now",
        Severity::Risk => "At risk",
        Severity::Advice => "Could be better",
        Severity::Note => "To know",
    }
}
