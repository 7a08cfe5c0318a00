defmodule Bench.Plot do
  # Figures over the number of processes as an SVG of their own, both axes by powers of ten: for docs/.

  @width 640
  @height 360
  @left 64
  @right 170
  @top 34
  @bottom 44

  # They differ by their shapes too, for who sees no colours.
  @colours ~w(#a5281b #846000 #1f5f5b #37698f #6a4fa3)
  @dashes ["", "6 3", "", "2 3", "8 3 2 3"]

  @doc "Writes `path`: by name the points `{processes, milliseconds}`."
  def write(path, title, series) do
    points = for {_name, points} <- series, point <- points, do: point
    xs = powers(Enum.map(points, &elem(&1, 0)))
    ys = powers(Enum.map(points, &elem(&1, 1)))
    scale = {xs, ys}

    File.write!(path, [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{@width} #{@height}" font-family="sans-serif" font-size="12">\n),
      ~s(<rect width="100%" height="100%" fill="#ffffff"/>\n),
      text(@left, 20, title, ~s(font-weight="bold")),
      for(power <- xs, do: grid_x(power, scale)),
      for(power <- ys, do: grid_y(power, scale)),
      text((@left + @width - @right) / 2, @height - 8, "processes", ~s(text-anchor="middle")),
      for({one, place} <- Enum.with_index(series), do: line(one, place, scale)),
      "</svg>\n"
    ])
  end

  # Those of ten that are around all values.
  defp powers(values) do
    {least, most} = Enum.min_max(values)
    first = floor(:math.log10(least))
    Enum.to_list(first..max(ceil(:math.log10(most)), first + 1))
  end

  defp grid_x(power, scale) do
    x = x(:math.pow(10, power), scale)

    [
      ~s(<path d="M#{n(x)} #{@top}V#{@height - @bottom}" stroke="#dddddd"/>\n),
      text(x, @height - @bottom + 16, number(power), ~s(text-anchor="middle"))
    ]
  end

  defp grid_y(power, scale) do
    y = y(:math.pow(10, power), scale)

    [
      ~s(<path d="M#{@left} #{n(y)}H#{@width - @right}" stroke="#dddddd"/>\n),
      text(@left - 6, y + 4, "#{number(power)} ms", ~s(text-anchor="end"))
    ]
  end

  defp line({name, points}, place, scale) do
    points = for {processes, ms} <- Enum.sort(points), do: {x(processes, scale), y(ms, scale)}
    colour = Enum.at(@colours, place)
    path = Enum.map_join(points, "L", fn {x, y} -> "#{n(x)} #{n(y)}" end)
    {last_x, last_y} = List.last(points)

    [
      ~s(<path d="M#{path}" fill="none" stroke="#{colour}" stroke-width="2" stroke-dasharray="#{Enum.at(@dashes, place)}"/>\n),
      for({x, y} <- points, do: ~s(<circle cx="#{n(x)}" cy="#{n(y)}" r="3" fill="#{colour}"/>\n)),
      text(last_x + 8, last_y + 4, name, ~s(fill="#{colour}"))
    ]
  end

  defp x(value, {powers, _ys}), do: @left + share(value, powers) * (@width - @right - @left)

  defp y(value, {_xs, powers}),
    do: @height - @bottom - share(value, powers) * (@height - @bottom - @top)

  defp share(value, powers) do
    first = hd(powers)
    (:math.log10(value) - first) / (List.last(powers) - first)
  end

  defp text(x, y, text, attributes),
    do: ~s(<text x="#{n(x)}" y="#{n(y)}" #{attributes}>#{text}</text>\n)

  defp number(power) when power >= 0, do: "#{10 |> :math.pow(power) |> round()}"
  defp number(power), do: "#{:math.pow(10, power)}"
  defp n(number), do: :erlang.float_to_binary(number / 1, decimals: 1)
end
