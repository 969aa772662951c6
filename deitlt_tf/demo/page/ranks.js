// Answers by the ranks of a taxonomy, {ranks, nodes, parents}, with the same rules as deitlt_tf.evaluation.rollup.

/** The index of the largest value. */
const best = (values) => values.reduce((at, value, i) => (value > values[at] ? i : at), 0);

/** For each rank the probabilities of its nodes: the sums over those of the rank below. */
function nodeProbabilities(probabilities, { nodes, parents }) {
  const byRank = [probabilities];
  parents.forEach((parentOf, i) => {
    const sums = new Array(nodes[i + 1].length).fill(0);
    byRank[i].forEach((probability, node) => { sums[parentOf[node]] += probability; });
    byRank.push(sums);
  });
  return byRank;
}

/**
 * The most probable node of each rank, the finest first: [{rank, name, probability}], and the name of the least-risk
 * class, which has the smallest expected height. probabilities: of the classes, an array.
 */
export function answersByRank(probabilities, taxonomy) {
  const byRank = nodeProbabilities(probabilities, taxonomy);
  const rows = byRank.map((values, r) => {
    const node = best(values);
    return { rank: taxonomy.ranks[r], name: taxonomy.nodes[r][node], probability: values[node] };
  });
  let score = byRank.at(-1);
  for (let r = byRank.length - 2; r >= 0; r--) {
    score = byRank[r].map((probability, node) => probability + score[taxonomy.parents[r][node]]);
  }
  return { rows, leastRisk: taxonomy.nodes[0][best(score)] };
}

/** The index of the finest row that is sure; -1 where none is. */
export const sureRow = (rows, threshold) => rows.findIndex(({ probability }) => probability >= threshold);
