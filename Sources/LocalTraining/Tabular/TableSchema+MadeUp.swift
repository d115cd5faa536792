extension TableSchema {
    /// Invented rows that pass every rule of the schema, for a rehearsal whose result is thrown away.
    func madeUpTable(rowCount: Int = 200) -> Table {
        var header: [String] = []
        var makers: [(Int) -> String] = []
        func add(_ column: String, _ cell: @escaping (Int) -> String) {
            // The label's column may also be a feature's; the first use decides its cells.
            guard !header.contains(column) else { return }
            header.append(column)
            makers.append(cell)
        }
        switch label {
        case .binary(let column, let comparison):
            let cells = ["0", "1", "-1", "yes", "no"].filter { comparison.holds(for: $0) != nil }
            add(column) { cells.isEmpty ? "0" : cells[$0 % cells.count] }
        case .classes(let column, let levels): add(column) { levels[$0 % levels.count] }
        }
        for feature in features {
            switch feature {
            case .number(let column, let center, let scale): add(column) { String(center + scale * Double($0 % 7 - 3)) }
            case .category(let column, let levels, _): add(column) { levels[$0 % levels.count] }
            case .text(let column, _, _): add(column) { "made up text number \($0 % 11)" }
            }
        }
        let rows = (0..<rowCount).map { row in makers.map { $0(row) } }
        guard let table = try? Table(header: header, rows: rows) else {
            preconditionFailure("each row has a cell for each column, and each column is there once")
        }
        return table
    }
}
