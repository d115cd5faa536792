import Tensors

extension UpdateColumns {
    /// Each row's L2 norm, shape `[count]`, parameter units.
    public func norms() throws(AggregationError) -> [Double] {
        let blocks = try mapBlocks { (block: inout Block) throws(AggregationError) -> [Double] in
            (0..<count).map { row in
                block.values.withUnsafeBufferPointer { values in
                    VectorKernels.squaredNorm(
                        UnsafeBufferPointer(rebasing: values[(row * block.width)..<((row + 1) * block.width)])
                    )
                }
            }
        }
        return Self.sum(blocks, count: count).map { $0.squareRoot() }
    }

    /// Each row's inner product with a vector, shape `[count]`.
    public func products(with vector: [Double]) throws(AggregationError) -> [Double] {
        precondition(vector.count == layout.parameterCount, "counts differ")
        let blocks = try mapBlocks { (block: inout Block) throws(AggregationError) -> [Double] in
            (0..<count).map { row in
                block.values.withUnsafeBufferPointer { values in
                    vector.withUnsafeBufferPointer { vector in
                        Self.dot(
                            UnsafeBufferPointer(rebasing: values[(row * block.width)..<((row + 1) * block.width)]),
                            UnsafeBufferPointer(rebasing: vector[block.range])
                        )
                    }
                }
            }
        }
        return Self.sum(blocks, count: count)
    }

    /// The weighted mean by exact integer addition, on the grid of ``FixedPointMean``.
    ///
    /// - Parameter weights: 1 or more for each row.
    /// - Returns: Shape `[parameterCount]`, parameter units.
    /// - Throws: ``AggregationError``.
    public func mean(weights: [Int]) throws(AggregationError) -> [Double] {
        precondition(weights.count == count && weights.allSatisfy { $0 >= 1 }, "a positive weight for each row")
        let step = FixedPointMean.step
        // Local minus global may exceed the bound on a file's values by the model's largest value.
        let bound = largestMagnitude
        let (total, isWide) = try FixedPointMean.checkedWeight(weights, valueBound: min(bound, valueBound))
        guard bound / step < 0x1p62 else { throw .sumTooLarge(bound: bound, totalWeight: Int(exactly: total) ?? .max) }
        if isWide || !FixedPointMean.fits64Bits(valueBound: bound, totalWeight: total) {
            return try wideMean(weights: weights, total: total)
        }
        let blocks = try mapBlocks { (block: inout Block) throws(AggregationError) -> [Double] in
            var sums = [Int64](repeating: 0, count: block.width)
            for row in 0..<count {
                let weight = Int64(weights[row])
                let offset = row * block.width
                for column in 0..<block.width {
                    let scaled = (Double(block.values[offset + column]) / step).rounded(.toNearestOrEven)
                    sums[column] += Int64(scaled) * weight
                }
            }
            return sums.map { Double($0) * step / total }
        }
        return blocks.flatMap { $0 }
    }

    /// ``mean(weights:)`` in sums of 128 bits.
    private func wideMean(weights: [Int], total: Double) throws(AggregationError) -> [Double] {
        let step = FixedPointMean.step
        let blocks = try mapBlocks { (block: inout Block) throws(AggregationError) -> [Double] in
            (0..<block.width).map { column in
                var sum: Int128 = 0
                for row in 0..<count {
                    let scaled = (Double(block.values[row * block.width + column]) / step).rounded(.toNearestOrEven)
                    sum += Int128(Int64(scaled)) * Int128(weights[row])
                }
                return Double(sum) * step / total
            }
        }
        return blocks.flatMap { $0 }
    }

    /// Squared distances between rows: entry `i * count + j`, symmetric, 0 on the diagonal.
    package func squaredDistances() throws(AggregationError) -> [Double] {
        let rows = count
        let blocks = try mapBlocks { (block: inout Block) throws(AggregationError) -> [Double] in
            let width = block.width
            return block.values.withUnsafeBufferPointer { values in
                var distances = [Double](repeating: 0, count: rows * rows)
                for first in 0..<rows {
                    let left = UnsafeBufferPointer(rebasing: values[(first * width)..<((first + 1) * width)])
                    for second in (first + 1)..<max(rows, first + 1) {
                        let right = UnsafeBufferPointer(rebasing: values[(second * width)..<((second + 1) * width)])
                        let distance = Self.squaredDistance(left, right)
                        distances[first * rows + second] = distance
                        distances[second * rows + first] = distance
                    }
                }
                return distances
            }
        }
        return Self.sum(blocks, count: rows * rows)
    }

    /// Adds partial results in the order of the blocks.
    package static func sum(_ blocks: [[Double]], count: Int) -> [Double] {
        var sums = [Double](repeating: 0, count: count)
        for block in blocks { for index in 0..<count { sums[index] += block[index] } }
        return sums
    }

    private static func squaredDistance(_ x: UnsafeBufferPointer<Float>, _ y: UnsafeBufferPointer<Float>) -> Double {
        var lanes = SIMD8<Double>(repeating: 0)
        var index = 0
        while index + 8 <= x.count {
            var difference = SIMD8<Float>()
            for lane in 0..<8 { difference[lane] = x[index + lane] - y[index + lane] }
            let wide = SIMD8<Double>(difference)
            lanes += wide * wide
            index += 8
        }
        var sum = lanes.sum()
        while index < x.count {
            let difference = Double(x[index] - y[index])
            sum += difference * difference
            index += 1
        }
        return sum
    }

    private static func dot(_ x: UnsafeBufferPointer<Float>, _ y: UnsafeBufferPointer<Double>) -> Double {
        var lanes = SIMD8<Double>(repeating: 0)
        var index = 0
        while index + 8 <= x.count {
            var left = SIMD8<Double>()
            var right = SIMD8<Double>()
            for lane in 0..<8 {
                left[lane] = Double(x[index + lane])
                right[lane] = y[index + lane]
            }
            lanes += left * right
            index += 8
        }
        var sum = lanes.sum()
        while index < x.count {
            sum += Double(x[index]) * y[index]
            index += 1
        }
        return sum
    }
}
