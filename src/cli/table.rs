//! Plain text tables: columns as wide as their widest cell.

/// Rows of cells under a head.
pub(super) struct Table {
    /// Title, and whether the column holds numbers, which end at the right.
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Titles; one that starts with `>` is a column of numbers.
    pub(super) fn new(titles: &[&str]) -> Self {
        let column = |title: &&str| (title.trim_start_matches('>').to_owned(), title.starts_with('>'));
        Self { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }

    /// # Panics
    /// Where the row has not one cell for each column.
    pub(super) fn row(&mut self, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        assert_eq!(cells.len(), self.columns.len(), "one cell for each column");
        self.rows.push(cells);
    }

    pub(super) fn render(&self) -> String {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]).chain([&titles[column]]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, &width), &(_, number)) in row.iter().zip(&widths).zip(&self.columns) {
                let cell = if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
