/// Sorts many short columns at once by Batcher's merge exchange, for any number of rows.
///
/// Each comparison puts the minima of two rows into one row and the maxima into the other. That loop vectorises, and sorting column by
/// column would not. Source: Knuth, The Art of Computer Programming 3, Algorithm 5.2.2M.
struct SortingNetwork: Sendable {
    private let pairs: [(low: Int, high: Int)]
    private let rows: Int

    init(rows: Int) {
        self.rows = rows
        var pairs: [(low: Int, high: Int)] = []
        var top = 1
        while top < rows { top *= 2 }
        var p = top / 2
        while p > 0 {
            var (q, r, distance) = (top / 2, 0, p)
            while true {
                for index in 0..<max(0, rows - distance) where index & p == r {
                    pairs.append((index, index + distance))
                }
                guard q != p else { break }
                distance = q - p
                q /= 2
                r = p
            }
            p /= 2
        }
        self.pairs = pairs
    }

    /// Sorts each column of `values[row * width + column]`, the smallest value into row 0.
    ///
    /// Every value must be finite.
    func sort(_ values: inout [Float], width: Int) {
        precondition(values.count == rows * width, "values do not fill the rows")
        // A tile of this many columns stays in the second-level cache for some hundred rows.
        let tile = 256
        values.withUnsafeMutableBufferPointer { values in
            guard let base = values.baseAddress else { return }
            var start = 0
            while start < width {
                let columns = min(tile, width - start)
                for pair in pairs {
                    let low = base + pair.low * width + start
                    let high = base + pair.high * width + start
                    for column in 0..<columns {
                        let (a, b) = (low[column], high[column])
                        low[column] = a < b ? a : b
                        high[column] = a < b ? b : a
                    }
                }
                start += columns
            }
        }
    }
}
