//! Tables that people read and `grep`, `sort` and `awk` can work with: no borders, one row a line.

use super::plain;
use comfy_table::{ContentArrangement, presets};

/// A table.
pub struct Table {
    inner: comfy_table::Table,
    rows: usize,
}

impl Table {
    /// A table with these column heads.
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        let mut inner = comfy_table::Table::new();
        inner
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(heads);
        for column in inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { inner, rows: 0 }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.map(|cell| if cell.is_empty() { "-".to_owned() } else { plain(&cell) });
        self.inner.add_row(cells);
        self.rows += 1;
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The text, with a line break at the end.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.inner.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_steers_the_terminal() {
        let mut table = Table::new(["NAME", "SIZE"]);
        table.row(["pgdata".into(), "10GiB".into()]);
        table.row(["a\x1b[31m".into(), String::new()]);
        let text = table.render();
        assert_eq!(text, "NAME    SIZE\npgdata  10GiB\na\u{fffd}[31m  -\n");
    }
}
