-- For wrk: posts the lines of a file, each once. Arguments: the file, how many lines to skip, how many to take.

local requests = {}
local sent = 0

function init(arguments)
    local skip, take = tonumber(arguments[2]), tonumber(arguments[3])
    local number = 0
    for line in io.lines(arguments[1]) do
        number = number + 1
        if number > skip + take then break end
        if number > skip then requests[#requests + 1] = wrk.format("POST", "/messages", nil, line) end
    end
end

function request()
    sent = sent + 1
    return requests[(sent - 1) % #requests + 1]
end
