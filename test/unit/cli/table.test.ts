import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { displayWidth, formatTable, printable } from '../../../src/cli/table.ts'

const ROWS = [
  ['docker.io', 'a rather long text about it', '1'],
  ['q', 'short', ''],
]

describe('a table', () => {
  it('pads its columns and leaves no space at line ends', () => {
    assert.equal(
      formatTable(['NAME', 'WHAT', 'N'], ROWS, { width: Infinity, indent: '  ' }),
      [
        '  NAME       WHAT                         N',
        '  docker.io  a rather long text about it  1',
        '  q          short',
      ].join('\n'),
    )
  })

  it('cuts its widest columns to fit a terminal, never the first', () => {
    const lines = formatTable(['NAME', 'WHAT', 'N'], ROWS, { width: 30 }).split('\n')
    assert.equal(lines[1], 'docker.io  a rather long t…  1')
    assert.ok(lines.every((line) => line.length <= 30))
  })

  it('stays whole where a terminal is absurdly narrow', () => {
    assert.match(formatTable(['NAME', 'WHAT'], [['a', 'b']], { width: 1 }), /NAME {2}WHAT\na {5}b/)
  })

  it('counts letters that take two columns as two', () => {
    assert.equal(displayWidth('日本 é 👍🏽'), 9)
    const [, first, second] = formatTable(
      ['A', 'B'],
      [
        ['日本', 'x'],
        ['abcd', 'y'],
      ],
      { width: Infinity },
    ).split('\n')
    assert.equal(first, '日本  x')
    assert.equal(second, 'abcd  y')
  })

  it('paints a cell after padding, so that colours move nothing', () => {
    const painted = formatTable(['A', 'B'], [['x', 'y']], {
      width: Infinity,
      paint: (padded, { row, column }) => (row === 0 && column === 1 ? `\u001b[31m${padded}   \u001b[39m` : padded),
    })
    assert.equal(painted, 'A  B\nx  \u001b[31my\u001b[39m')
  })
})

describe('text from outside', () => {
  const cases: [string, string][] = [
    ['plain', 'plain'],
    ['two\nlines\r\n', 'two lines '],
    ['\u001b[31mred\u001b[0m', 'red'],
    ['bell\u0007 nul\u0000', 'bell  nul '],
    ['turned \u202etxt.exe', 'turned txt.exe'],
    ['\u009b31mC1', 'C1'],
  ]
  for (const [raw, shown] of cases) {
    it(`${JSON.stringify(raw)} is shown as ${JSON.stringify(shown)}`, () => assert.equal(printable(raw), shown))
  }

  it('never moves the cursor', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => !/\p{Cc}/u.test(printable(text))))
  })
})
