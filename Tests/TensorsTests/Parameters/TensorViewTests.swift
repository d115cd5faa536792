import Tensors
import Testing

struct TensorViewTests {
    private let layout = ParameterLayout([
        .init(name: "a", shape: []), .init(name: "m", shape: [2, 3]), .init(name: "z", shape: [2]),
    ])

    private var vector: ParameterVector { ParameterVector(layout: layout, values: (0..<9).map(Float.init)) }

    @Test func aTensorIsReadByItsName() throws {
        let matrix = try #require(vector["m"])
        #expect(matrix.shape == [2, 3] && Array(matrix) == [1, 2, 3, 4, 5, 6])
        #expect(matrix[0] == 1 && matrix[1, 0] == 4 && matrix[1, 2] == 6 && matrix.count == 6)
        #expect(vector["a"].map(Array.init) == [0] && vector["z"]?.last == 8)
        #expect(vector["none"] == nil)
    }

    @Test func aTensorIsWrittenByItsName() throws {
        var changed = vector
        try changed.write("m", [9, 9, 9, 9, 9, 9])
        try changed.update("z") { values, shape in
            #expect(shape == [2])
            values[1] *= 10
        }
        #expect(changed.values == [0, 9, 9, 9, 9, 9, 9, 7, 80])
        #expect((changed - vector).values == [0, 8, 7, 6, 5, 4, 3, 0, 72])
        #expect(throws: TensorAccessError.wrongCount(name: "z", expected: 2, actual: 3)) {
            try changed.write("z", [1, 2, 3])
        }
        #expect(throws: TensorAccessError.unknownTensor(name: "none")) { try changed.write("none", []) }
        #expect(throws: TensorAccessError.unknownTensor(name: "none")) { try changed.update("none") { _, _ in } }
        #expect(changed.values.count == 9)
    }
}
