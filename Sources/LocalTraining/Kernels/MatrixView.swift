/// A row-major matrix in memory that somebody else owns.
///
/// Element (i, j) lies at `base[i * stride + j]`, in a transposed view at `base[j * stride + i]`.
package struct MatrixView<Value> {
    package let base: UnsafePointer<Value>
    package let rows: Int
    package let columns: Int
    /// Values from the beginning of one stored row to that of the next.
    package let stride: Int
    package let isTransposed: Bool

    /// Looks at memory; the stride is the number of columns where it is not given.
    package init(_ base: UnsafePointer<Value>, rows: Int, columns: Int, stride: Int? = nil) {
        self.init(base, rows: rows, columns: columns, stride: stride ?? columns, isTransposed: false)
    }

    private init(_ base: UnsafePointer<Value>, rows: Int, columns: Int, stride: Int, isTransposed: Bool) {
        self.base = base
        self.rows = rows
        self.columns = columns
        self.stride = stride
        self.isTransposed = isTransposed
    }

    /// The same memory with rows for columns.
    package var transposed: Self {
        Self(base, rows: columns, columns: rows, stride: stride, isTransposed: !isTransposed)
    }
}

/// A row-major matrix to write to, in memory that somebody else owns: element (i, j) lies at `base[i * stride + j]`.
package struct MutableMatrixView<Value> {
    package let base: UnsafeMutablePointer<Value>
    package let rows: Int
    package let columns: Int
    /// Values from the beginning of one row to that of the next.
    package let stride: Int

    /// Looks at memory; the stride is the number of columns where it is not given.
    package init(_ base: UnsafeMutablePointer<Value>, rows: Int, columns: Int, stride: Int? = nil) {
        self.base = base
        self.rows = rows
        self.columns = columns
        self.stride = stride ?? columns
    }

    /// The same matrix to read from.
    package var values: MatrixView<Value> { MatrixView(base, rows: rows, columns: columns, stride: stride) }
}

extension MatrixView {
    /// Some rows of a view that is not transposed.
    func rows(_ range: Range<Int>) -> Self {
        precondition(!isTransposed, "rows of a transposed view are not together")
        return Self(base + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }
}

extension MutableMatrixView {
    /// Some rows.
    func rows(_ range: Range<Int>) -> Self {
        Self(base + range.lowerBound * stride, rows: range.count, columns: columns, stride: stride)
    }
}

extension Array {
    /// Calls `body` with a view of the array, unless it is empty.
    package func withMatrix(rows: Int, columns: Int, _ body: (MatrixView<Element>) -> Void) {
        precondition(count == rows * columns, "a matrix fills its array")
        withUnsafeBufferPointer {
            if let base = $0.baseAddress { body(MatrixView(base, rows: rows, columns: columns)) }
        }
    }

    /// Calls `body` with a view of the array to write to, unless it is empty.
    package mutating func withMutableMatrix(rows: Int, columns: Int, _ body: (MutableMatrixView<Element>) -> Void) {
        precondition(count == rows * columns, "a matrix fills its array")
        withUnsafeMutableBufferPointer {
            if let base = $0.baseAddress { body(MutableMatrixView(base, rows: rows, columns: columns)) }
        }
    }
}
