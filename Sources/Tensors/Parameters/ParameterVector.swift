/// All parameters of a model, or an update of them, as one flat vector of floats.
public struct ParameterVector: Equatable, Sendable {
    /// How `values` is divided into tensors.
    public let layout: ParameterLayout
    /// Shape `[layout.parameterCount]`.
    public var values: [Float]

    /// Creates a vector.
    ///
    /// - Parameters:
    ///   - layout: How the values are divided into tensors.
    ///   - values: Shape `[layout.parameterCount]`.
    /// - Precondition: There are as many values as the layout has parameters.
    public init(layout: ParameterLayout, values: [Float]) {
        precondition(values.count == layout.parameterCount, "values do not fill the layout")
        self.layout = layout
        self.values = values
    }

    /// A vector of zeros.
    public init(zeros layout: ParameterLayout) {
        self.init(layout: layout, values: [Float](repeating: 0, count: layout.parameterCount))
    }
}
